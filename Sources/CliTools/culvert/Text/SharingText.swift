import Gateway

extension SharingReport {
  /// What `culvert show` prints of it.
  var lines: [String] {
    var lines = [
      "  sharing \(interfaces.joined(separator: " ")) with \(lan.joined(separator: " ")), "
        + "\(Figure.count(connections)) connections begun, \(Figure.count(refused)) packets refused"
    ]
    if let problem { lines.append("  nothing is shared: \(problem)") }
    var table = TextTable([("SERVICE", .left), ("PORT", .left), ("TO", .left), ("CONNECTIONS", .right)])
    for service in services {
      table.add([
        service.name, "\(service.transport) \(service.port)", service.target, Figure.count(service.connections),
      ])
    }
    return lines + (table.isEmpty ? [] : table.lines(indent: "  "))
  }
}
