import PacketIO

/// Inbound associations by SPI, with open addressing: at most half of the places are taken, and a look-up ends at the
/// first free one. Its owner counts them, and makes a larger table in time.
struct AssociationTable: ~Copyable {
  /// An association and its peer's row.
  struct Entry: BitwiseCopyable {
    let spi: UInt32
    let peer: Int32
    let state: StateReference<InboundAssociation>
  }

  private let places: FixedArray<Entry?>

  /// - Parameter capacity: associations that there may be.
  init(capacity: Int) {
    var size = 16
    while size < capacity * 2 { size *= 2 }
    places = FixedArray(repeating: nil, count: size)
  }

  /// Associations that there may be.
  var capacity: Int { places.count / 2 }

  @inline(__always)
  borrowing func find(_ spi: UInt32) -> Entry? {
    var place = slot(spi)
    while let entry = places[place] {
      if entry.spi == spi { return entry }
      place = next(place)
    }
    return nil
  }

  /// Fetches the place where the search for an SPI begins.
  @inline(__always)
  borrowing func prefetch(_ spi: UInt32) { places.prefetch(slot(spi)) }

  /// Takes the place of one with the same SPI.
  borrowing func insert(_ entry: Entry) {
    var place = slot(entry.spi)
    while let other = places[place], other.spi != entry.spi { place = next(place) }
    places.reference(place).value = entry
  }

  /// Nothing happens when it is not there.
  borrowing func remove(_ spi: UInt32) {
    var gap = slot(spi)
    while let entry = places[gap], entry.spi != spi { gap = next(gap) }
    guard places[gap] != nil else { return }
    // Whoever was put behind because this place was taken moves up, so that searches go on to find it.
    var place = next(gap)
    while let entry = places[place] {
      let home = slot(entry.spi)
      if distance(from: home, to: place) >= distance(from: gap, to: place) {
        places.reference(gap).value = entry
        gap = place
      }
      place = next(place)
    }
    places.reference(gap).value = nil
  }

  @inline(__always)
  private borrowing func slot(_ spi: UInt32) -> Int {
    Int(truncatingIfNeeded: (UInt64(spi) &* 0x9E37_79B9_7F4A_7C15) >> 32) & (places.count &- 1)
  }

  @inline(__always)
  private borrowing func next(_ place: Int) -> Int { (place &+ 1) & (places.count &- 1) }

  private borrowing func distance(from: Int, to: Int) -> Int { (to &- from) & (places.count &- 1) }
}
