import Foundation
import Lab

/// What a scenario found: every single value, with what is needed to understand it later.
struct Report: Codable {
  /// One quantity.
  struct Metric: Codable, Equatable {
    /// Stable, for comparisons: "tcp-1".
    var id: String
    /// For the head of a table: "TCP, one stream".
    var title: String
    var unit: String
    var higherIsBetter: Bool
    /// Metrics of one title that differ in this alone share a table, as its columns: a packet size.
    var column: String?
  }

  /// What is measured.
  struct Entry: Codable, Equatable {
    var name: String
    /// A bound is what no tunnel on this machine can exceed; the other subjects are shown as shares of it.
    var isBound: Bool
    /// Version, cipher, and the like.
    var note: String?
  }

  /// The values of one metric of one subject, one a round.
  struct Result: Codable, Equatable {
    var subject: String
    var metric: String
    var values: Samples
  }

  static let currentFormat = 1
  var format = Report.currentFormat
  var scenario: String
  var machine = Machine()
  /// Seconds since 1970.
  var began = Date().timeIntervalSince1970
  var settings: [String: String] = [:]
  var subjects: [Entry] = []
  var metrics: [Metric] = []
  var results: [Result] = []
  var warnings: [String] = []
  /// Nil in files from before there were any.
  var profiles: [Profile]? = nil

  init(scenario: String) { self.scenario = scenario }

  mutating func add(_ value: Double, _ metric: Metric, of subject: Entry) {
    if !metrics.contains(metric) { metrics.append(metric) }
    if !subjects.contains(subject) { subjects.append(subject) }
    if let index = results.firstIndex(where: { $0.subject == subject.name && $0.metric == metric.id }) {
      results[index].values.append(value)
    } else {
      results.append(Result(subject: subject.name, metric: metric.id, values: Samples([value])))
    }
  }

  func values(_ metric: String, of subject: String) -> Samples? {
    results.first { $0.subject == subject && $0.metric == metric }?.values
  }

  mutating func warn(_ text: String) { if !warnings.contains(text) { warnings.append(text) } }

  // MARK: Files

  func write(to path: String) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    do {
      try encoder.encode(self).write(to: URL(filePath: path), options: .atomic)
    } catch {
      throw LabError("\(path) cannot be written: choose another place for --json")
    }
  }

  init(contentsOf path: String) throws {
    guard let data = FileManager.default.contents(atPath: path) else { throw LabError("\(path) cannot be read") }
    do {
      self = try JSONDecoder().decode(Report.self, from: data)
    } catch {
      throw LabError("\(path) is not a result of vpnbench: give a file that --json wrote")
    }
    guard format == Report.currentFormat else {
      throw LabError("\(path) has format \(format), this program knows \(Report.currentFormat): measure again")
    }
  }
}

/// Where the figures come from; without it they mean little.
struct Machine: Codable, Equatable {
  var processor: String
  var cores: Int
  var memoryGiB: Double
  var kernel: String
  var swift: String
  /// "release" or "debug".
  var build: String

  init() {
    let model = ProcFile.field("model name", of: "/proc/cpuinfo", wholeLine: true)
    processor = model ?? "unknown"
    cores = ProcessInfo.processInfo.activeProcessorCount
    memoryGiB = (Double(ProcessInfo.processInfo.physicalMemory) / 1_073_741_824 * 10).rounded() / 10
    kernel = (ProcFile.read("/proc/sys/kernel/osrelease") ?? "unknown").trimmingCharacters(in: .whitespacesAndNewlines)
    #if compiler(>=6.4)
      swift = "6.4 or newer"
    #elseif compiler(>=6.3)
      swift = "6.3"
    #else
      swift = "6.2"
    #endif
    build = Machine.isDebugBuild ? "debug" : "release"
  }

  static var isDebugBuild: Bool {
    var isDebug = false
    assert(
      {
        isDebug = true
        return true
      }())
    return isDebug
  }
}

extension Machine: CustomStringConvertible {
  var description: String {
    "\(processor), \(cores) core\(cores == 1 ? "" : "s"), \(memoryGiB) GiB, Linux \(kernel), \(build) build"
  }
}
