import Lab

/// How one VPN program is set up between two namespaces.
protocol VPNProgramSetup {
  /// Its path.
  var program: String { get }
  var plan: SubjectPlan { get }
  /// What results say of it: version, cipher.
  var notes: [String?] { get }
  /// Starts both ends with `peer.run`; returns when their devices are there.
  /// - Parameter directory: for the program's files, of both ends.
  func start(_ peer: VPNProgramSubject, _ network: Network, in directory: TemporaryDirectory) throws
}

/// A VPN program with its processes, and a directory for their files.
final class VPNProgramSubject: Subject {
  let entry: Report.Entry
  private(set) var processes: [ProcessHandle] = []
  private let setup: any VPNProgramSetup
  private var directory: TemporaryDirectory?

  init(name: String, _ setup: any VPNProgramSetup) {
    entry = Report.Entry(
      name: name, isBound: false, note: setup.notes.compactMap(\.self).joined(separator: ", "))
    self.setup = setup
  }

  var plan: SubjectPlan { setup.plan }

  func setUp(_ network: Network) throws {
    try plan.addHosts(network)
    let directory = try TemporaryDirectory()
    self.directory = directory
    try setup.start(self, network, in: directory)
    try awaitPath(network)
  }

  /// Starts the program at one end.
  /// - Parameter side: 0 or 1.
  func run(
    _ arguments: [String], environment: [(String, String)] = [], _ network: Network, _ side: Int
  ) throws -> ProcessHandle {
    let process = try ProcessHandle(setup.program, arguments, environment: environment, in: gateway(network, side))
    processes.append(process)
    return process
  }

  func tearDown() {
    for process in processes { process.terminate() }
    processes = []
    directory?.remove()
    directory = nil
  }
}
