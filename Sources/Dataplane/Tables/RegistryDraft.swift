import PacketIO

/// A peer that is in force.
struct RegistryMember {
  var record: PeerRecord
  /// Its plan if nothing was negotiated, which is what is validated.
  var base: AddressPlan.Peer
  var order: Int
  var row: Int
  /// By worker.
  var cells: [PeerCells]

  var configuration: PeerConfiguration { record.configuration }
}

/// What a peer is to be.
struct DraftTarget {
  var configuration: PeerConfiguration
  var agreement: AddressAgreement
  var order: Int
  var base = AddressPlan.Peer()
  var plan = AddressPlan.Peer()

  init(_ configuration: PeerConfiguration, _ agreement: AddressAgreement, order: Int) {
    self.configuration = configuration
    self.agreement = agreement
    self.order = order
  }
}

struct DraftStep {
  let name: String
  /// What it was; nil: it is new.
  let old: RegistryMember?
  /// What it is to be; nil: it goes.
  var new: DraftTarget?
  /// Only its plan follows from others that are touched.
  var isFollower = false
  /// How far its new side is in the indices.
  var isEntered = false
  var isRouted = false

  init(_ name: String, _ old: RegistryMember?, _ new: DraftTarget?) {
    self.name = name
    self.old = old
    self.new = new
  }
}

/// What changes come to: peers that are touched, or follow from those that are.
struct RegistryDraft {
  var settings: Configuration
  /// Those that were in force.
  var before: Configuration?
  var steps: [DraftStep] = []
  private var places: [String: Int] = [:]
  /// It changes what was negotiated, and nothing else.
  var isAgreement = false
  var interface: InterfaceConfiguration

  init(settings: Configuration) {
    self.settings = settings
    interface = settings.interface
  }

  /// Peers that nobody has named, and whose prefixes may be routed otherwise.
  var followers: [String] { steps.filter(\.isFollower).map(\.name) }

  /// Something else than peers is another.
  var changesSettings: Bool { before != settings }

  func step(of peer: String) -> DraftStep? { places[peer].map { steps[$0] } }

  mutating func add(_ step: DraftStep) {
    if let place = places[step.name] {
      steps[place].new = step.new
    } else {
      places[step.name] = steps.count
      steps.append(step)
    }
  }

  /// In the configuration's order, which decides who has a prefix.
  mutating func sort() {
    steps.sort { ($0.new?.order ?? -1, $0.name) < ($1.new?.order ?? -1, $1.name) }
    places = Dictionary(uniqueKeysWithValues: steps.enumerated().map { ($1.name, $0) })
  }
}
