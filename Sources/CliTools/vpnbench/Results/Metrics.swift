extension Report.Metric {
  /// In the order in which results show them.
  static let tunnel = [
    tcp1, tcp4, cpu, system, smallBounded, smallLossless, largeBounded, largeLossless, ping50, ping90, ping99, pingMax,
    memory, memoryGrowth,
  ]

  static let tcp1 = Report.Metric(id: "tcp-1", title: "TCP, one stream", unit: "Gbit/s", higherIsBetter: true)
  static let tcp4 = Report.Metric(id: "tcp-4", title: "TCP, four streams", unit: "Gbit/s", higherIsBetter: true)
  static let cpu = Report.Metric(
    id: "cpu", title: "Processor time of the programs, one TCP stream", unit: "s/GB", higherIsBetter: false)
  static let system = Report.Metric(
    id: "cpu-system", title: "Processor time of the whole machine, one TCP stream", unit: "s/GB", higherIsBetter: false)
  static let smallBounded = Report.Metric(
    id: "udp-64", title: "UDP, 64 bytes, at most 1 % lost", unit: "kpps", higherIsBetter: true)
  static let smallLossless = Report.Metric(
    id: "udp-64-lossless", title: "UDP, 64 bytes, nothing lost", unit: "kpps", higherIsBetter: true)
  static let largeBounded = Report.Metric(
    id: "udp-1350", title: "UDP, 1350 bytes, at most 1 % lost", unit: "kpps", higherIsBetter: true)
  static let largeLossless = Report.Metric(
    id: "udp-1350-lossless", title: "UDP, 1350 bytes, nothing lost", unit: "kpps", higherIsBetter: true)
  static let ping50 = Report.Metric(id: "ping-p50", title: "Idle ping, median", unit: "µs", higherIsBetter: false)
  static let ping90 = Report.Metric(
    id: "ping-p90", title: "Idle ping, 90th percentile", unit: "µs", higherIsBetter: false)
  static let ping99 = Report.Metric(
    id: "ping-p99", title: "Idle ping, 99th percentile", unit: "µs", higherIsBetter: false)
  static let pingMax = Report.Metric(id: "ping-max", title: "Idle ping, longest", unit: "µs", higherIsBetter: false)
  static let memory = Report.Metric(
    id: "memory", title: "Peak resident memory of one process", unit: "MiB", higherIsBetter: false)
  static let memoryGrowth = Report.Metric(
    id: "memory-growth", title: "Growth of that peak after the first round", unit: "MiB", higherIsBetter: false)

  /// - Parameter kind: small, large or tcp.
  static func hubOut(_ kind: String) -> Report.Metric { hub("out", "packets out", "kpps", kind) }
  static func hubIn(_ kind: String) -> Report.Metric { hub("in", "packets in", "kpps", kind) }
  static func hubBoth(_ kind: String) -> Report.Metric {
    hub("both", "one packet out and one in", "thousand pairs/s", kind)
  }

  /// Small packets came first, and their metrics have no suffix.
  private static func hub(_ id: String, _ title: String, _ unit: String, _ kind: String) -> Report.Metric {
    let names = ["small": "Small UDP", "large": "Large UDP", "tcp": "TCP superpackets"]
    return Report.Metric(
      id: kind == "small" ? id : "\(id)-\(kind)", title: "\(names[kind] ?? kind), \(title)", unit: unit,
      higherIsBetter: true)
  }
}
