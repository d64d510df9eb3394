import Lab

/// Another VPN program that vpnbench knows how to set up between its namespaces.
enum PeerProgram: String, CaseIterable {
  case wireGuardGo = "wireguard-go"
  case strongSwan = "strongswan"
  case nebula
  case fastd
  case tinc
  case openVPN = "openvpn-tcp"

  /// The executable that is looked for, or that a path given leads to.
  var executable: String {
    switch self {
    case .wireGuardGo, .nebula, .fastd: rawValue
    case .strongSwan: "charon-systemd"
    case .tinc: "tincd"
    case .openVPN: "openvpn"
    }
  }

  /// Debian's packages that bring it.
  var package: String {
    switch self {
    case .wireGuardGo, .nebula, .fastd, .tinc: rawValue
    case .openVPN: "openvpn"
    case .strongSwan: "charon-systemd, strongswan-swanctl and libcharon-extra-plugins"
    }
  }

  /// What a name in `--peer NAME=PATH` begins with.
  init?(prefixOf name: String) {
    guard let match = PeerProgram.allCases.first(where: { name.hasPrefix($0.rawValue) }) else { return nil }
    self = match
  }

  /// - Parameter path: the program.
  func subject(name: String, path: String, _ plan: SubjectPlan) -> any Subject {
    switch self {
    case .wireGuardGo: WireGuardGo(name: name, program: path, plan)
    case .strongSwan: StrongSwan(name: name, program: path, plan)
    case .nebula: Nebula(name: name, program: path, plan)
    case .fastd: Fastd(name: name, program: path, plan)
    case .tinc: Tinc(name: name, program: path, plan)
    case .openVPN: OpenVPN(name: name, program: path, plan)
    }
  }

  /// The programs to measure and those that are missing.
  /// - Parameters:
  ///   - given: from `--peer NAME=PATH`; a name that is a program's own takes the place of the one found.
  ///   - lookUp: where a program of a name is installed; nil: nowhere.
  static func find(
    given: [PeerChoice], lookUp: (String) -> String? = Tool.path
  ) -> (found: [PeerChoice], missing: [PeerProgram]) {
    var found: [PeerChoice] = []
    var missing: [PeerProgram] = []
    for program in allCases {
      let ours = given.filter { $0.program == program }
      if !ours.contains(where: { $0.name == program.rawValue }) {
        if let path = lookUp(program.executable) {
          found.append(PeerChoice(program: program, name: program.rawValue, path: path))
        } else if ours.isEmpty {
          missing.append(program)
        }
      }
      found += ours
    }
    return (found, missing)
  }

  /// The first word with a digit in what a program says of its version, without a "v" in front.
  static func version(_ program: String, _ arguments: String...) -> String? {
    let words = try? Tool.run(program, arguments).split { $0.isWhitespace || $0 == "," }
    return words?.first { $0.contains(where: \.isNumber) }.map { String($0.drop { $0 == "v" || $0 == "U" }) }
  }
}

/// One program to measure.
struct PeerChoice: Equatable {
  var program: PeerProgram
  /// In the results.
  var name: String
  var path: String

  init(program: PeerProgram, name: String, path: String) {
    self.program = program
    self.name = name
    self.path = path
  }

  /// Reads "NAME=PATH"; nil when it is not that.
  init?(_ text: String) {
    let parts = text.split(separator: "=", maxSplits: 1).map(String.init)
    guard parts.count == 2, let program = PeerProgram(prefixOf: parts[0]) else { return nil }
    self.init(program: program, name: parts[0], path: parts[1])
  }
}
