import Transports

/// One of a hairpin's two sides, by its place in the table of all.
struct SideIndex: Hashable, BitwiseCopyable {
  let place: Int

  init(place: Int) { self.place = place }
  init(hairpin: Int, _ end: HairpinEnd) { place = 2 * hairpin + Int(end.rawValue) }

  /// The hairpin's place among hairpins.
  var hairpin: Int { place >> 1 }
  /// Which of the ticket's gateways it is for.
  var end: HairpinEnd { place & 1 == 0 ? .first : .second }
  /// The other side of the same hairpin.
  var partner: SideIndex { SideIndex(place: place ^ 1) }
}
