import Lab

@testable import vpnbench

/// Results to draw and to compare.
enum Reports {
  static let speed = Report.Metric(id: "speed", title: "Speed", unit: "Gbit/s", higherIsBetter: true)
  static let time = Report.Metric(id: "time", title: "Time", unit: "µs", higherIsBetter: false)
  static let wire = Report.Entry(name: "wire", isBound: true, note: nil)
  static let tunnel = Report.Entry(name: "culvert", isBound: false, note: nil)
  static let other = Report.Entry(name: "other", isBound: false, note: nil)

  static func report(_ values: [(Report.Entry, Report.Metric, [Double])]) -> Report {
    var report = Report(scenario: "test")
    for (subject, metric, values) in values {
      for value in values { report.add(value, metric, of: subject) }
    }
    return report
  }
}
