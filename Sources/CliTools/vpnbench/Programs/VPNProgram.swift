import Lab

/// Another VPN program that vpnbench knows how to set up between its namespaces.
enum VPNProgram: String, CaseIterable {
  case wireGuardGo = "wireguard-go"
  case strongSwan = "strongswan"
  case openVPN = "openvpn"
  case openVPNOverTCP = "openvpn-tcp"
  case nebula
  case fastd
  case tinc

  /// The executable that is looked for, or that a path given leads to.
  var executable: String {
    switch self {
    case .wireGuardGo, .openVPN, .nebula, .fastd: rawValue
    case .openVPNOverTCP: "openvpn"
    case .strongSwan: "charon-systemd"
    case .tinc: "tincd"
    }
  }

  /// Debian's packages that bring it.
  var package: String {
    switch self {
    case .wireGuardGo, .openVPN, .nebula, .fastd, .tinc: rawValue
    case .openVPNOverTCP: "openvpn"
    case .strongSwan: "charon-systemd, strongswan-swanctl and libcharon-extra-plugins"
    }
  }

  /// What a name in `--peer NAME=PATH` begins with.
  init?(prefixOf name: String) {
    let matches = VPNProgram.allCases.filter { name.hasPrefix($0.rawValue) }
    guard let match = matches.max(by: { $0.rawValue.count < $1.rawValue.count }) else { return nil }
    self = match
  }

  /// - Parameter path: the program.
  func subject(name: String, path: String, _ plan: SubjectPlan) -> any Subject {
    switch self {
    case .wireGuardGo: VPNProgramSubject(name: name, WireGuardGo(program: path, plan: plan))
    case .strongSwan: VPNProgramSubject(name: name, StrongSwan(program: path, plan: plan))
    case .openVPN: VPNProgramSubject(name: name, OpenVPN(program: path, usesTCP: false, plan: plan))
    case .openVPNOverTCP: VPNProgramSubject(name: name, OpenVPN(program: path, usesTCP: true, plan: plan))
    case .nebula: VPNProgramSubject(name: name, Nebula(program: path, plan: plan))
    case .fastd: VPNProgramSubject(name: name, Fastd(program: path, plan: plan))
    case .tinc: VPNProgramSubject(name: name, Tinc(program: path, plan: plan))
    }
  }

  /// The programs to measure and those that are missing.
  /// - Parameters:
  ///   - given: from `--peer NAME=PATH`; a name that is a program's own takes the place of the one found.
  ///   - lookUp: where a program of a name is installed; nil: nowhere.
  static func find(
    given: [VPNProgramChoice], lookUp: (String) -> String? = Tool.path
  ) -> (found: [VPNProgramChoice], missing: [VPNProgram]) {
    var found: [VPNProgramChoice] = []
    var missing: [VPNProgram] = []
    for program in allCases {
      let ours = given.filter { $0.program == program }
      if !ours.contains(where: { $0.name == program.rawValue }) {
        if let path = lookUp(program.executable) {
          found.append(VPNProgramChoice(program: program, name: program.rawValue, path: path))
        } else if ours.isEmpty {
          missing.append(program)
        }
      }
      found += ours
    }
    return (found, missing)
  }

  /// The first word with a digit in what a program says of its version, without a "v" in front.
  static func version(_ program: String, _ argument: String) -> String? {
    let words = try? Tool.run(program, [argument]).split { $0.isWhitespace || $0 == "," }
    return words?.first { $0.contains(where: \.isNumber) }.map { String($0.drop { $0 == "v" || $0 == "U" }) }
  }
}

/// One program to measure.
struct VPNProgramChoice: Equatable {
  var program: VPNProgram
  /// In the results.
  var name: String
  var path: String

  init(program: VPNProgram, name: String, path: String) {
    self.program = program
    self.name = name
    self.path = path
  }

  /// Reads "NAME=PATH"; nil when it is not that.
  init?(_ text: String) {
    let parts = text.split(separator: "=", maxSplits: 1).map(String.init)
    guard parts.count == 2, let program = VPNProgram(prefixOf: parts[0]) else { return nil }
    self.init(program: program, name: parts[0], path: parts[1])
  }
}
