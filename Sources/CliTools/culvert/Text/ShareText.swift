import Dataplane
import Gateway

extension GatewayReport {
  /// What `culvert show --shares` prints: of each resource that peers and strangers share, how much is held, by whom, and
  /// who did not get what he wanted.
  var sharesText: String {
    var table = TextTable([
      ("SHARED", .left), ("HELD", .right), ("OF", .right), ("BY", .left), ("HELD", .right), ("REFUSED", .right),
    ])
    for share in statistics.shares {
      let place = share.transport.map { " of transport \($0)" } ?? ""
      var cells = [
        share.resource.rawValue + place, Figure.count(UInt64(clamping: share.used)),
        Figure.count(UInt64(clamping: share.capacity)),
      ]
      if share.holders.isEmpty { table.add(cells + ["", "", Figure.count(share.refused)]) }
      for part in share.holders {
        table.add(
          cells + [part.holder, Figure.count(UInt64(clamping: part.held)), Figure.count(part.refused)])
        cells = ["", "", ""]
      }
    }
    return (["\(name) on \(statistics.interface)"] + table.lines(indent: "  ")).joined(separator: "\n")
  }
}
