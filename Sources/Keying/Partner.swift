public import Identity
public import KeyDerivation
public import PacketIO

/// Somebody to share keys with, as the operator or a control system has it.
public struct Partner: Sendable, Equatable {
  /// Unique; what events and actions call it.
  public var name: String
  /// Who this side is towards it.
  public var local: HostIdentity
  /// Who it is: the hash of its key.
  public var remote: HostIdentityTag
  /// Its key, if it is known; else it is what it shows and hashes to `remote`.
  public var remoteIdentity: PublicHostIdentity?
  /// Mixed into all keys, for peers that share a secret: 32 bytes.
  public var mix: KeyMaterial?
  /// Where it may be found, the best first.
  public var paths: [Path]
  /// Those of the paths that lead to identity relays, which are told what to forward.
  public var relays: [Path] = []
  /// ESP suites that may be agreed upon, the best first.
  public var suites: [ESPSuite]
  /// Diffie-Hellman groups that may be agreed upon, the best first.
  public var groups: [DiffieHellmanGroup]
  /// Whether keys are to withstand a quantum computer.
  public var postQuantum: PostQuantumMode
  /// It is a HIPv2 program of somebody else: nothing private is sent to it.
  public var isForeign: Bool
  /// How long keys are used.
  public var lifetime: KeyLifetime
  /// Time without user traffic after which keys go; nil: they never do. The partner is told why, and waits for traffic
  /// too, but for programs of others (`isForeign`), which may begin a handshake at once.
  public var idleClose: Duration?

  public init(
    name: String, local: HostIdentity, remote: HostIdentityTag, remoteIdentity: PublicHostIdentity? = nil,
    mix: KeyMaterial? = nil, paths: [Path] = [], suites: [ESPSuite] = ESPSuite.all,
    groups: [DiffieHellmanGroup] = [.x25519, .p256], postQuantum: PostQuantumMode = .preferred,
    isForeign: Bool = false, lifetime: KeyLifetime = KeyLifetime(), idleClose: Duration? = nil
  ) {
    self.name = name
    self.local = local
    self.remote = remote
    self.remoteIdentity = remoteIdentity
    self.mix = mix
    self.paths = paths
    self.suites = suites
    self.groups = groups
    self.postQuantum = postQuantum
    self.isForeign = isForeign
    self.lifetime = lifetime
    self.idleClose = idleClose
  }

  /// A partner with which this side shares a secret: both derive both identities, and the handshake is the same.
  ///
  /// - Parameters:
  ///   - secret: 32 bytes or more, random.
  ///   - localName: this gateway's name, 1 to 255 bytes; other than `name`, which the partner has as its own.
  public init(name: String, secret: KeyMaterial, localName: String, paths: [Path] = []) {
    let remote = HostIdentity(secret: secret, name: name)
    self.init(
      name: name, local: HostIdentity(secret: secret, name: localName), remote: remote.tag,
      remoteIdentity: remote.publicIdentity,
      mix: KeyedHash.hkdfSHA256(secret: secret, salt: [], info: Array("culvert psk mix v1".utf8), count: 32),
      paths: paths)
  }

  /// Bytes of the shortest secret that is safe.
  public static let leastSecret = 32

  /// Whether keys that were agreed upon with it when it was `before` are good enough now.
  func accepts(_ session: Session, agreedWith before: Partner) -> Bool {
    offeredSuites.contains(session.espSuite) && offeredGroups.contains(session.group)
      && isForeign == before.isForeign && mix == before.mix
      && (postQuantum != .required || before.postQuantum == .required || session.isPostQuantum)
  }

  /// Foreign programs know neither suites nor groups of ours.
  var offeredSuites: [ESPSuite] { isForeign ? [ESPSuite(.aes128GCM)] : suites }
  var offeredGroups: [DiffieHellmanGroup] { isForeign ? groups.filter { $0 != .x25519 } : groups }
}

/// How long keys are used (RFC 4301 §4.4.2.1), and no longer. New ones are made before: at five sixths of the time, half
/// of the packets, three quarters of the bytes.
public struct KeyLifetime: Sendable, Equatable {
  /// A minute to a day.
  public var time: Duration
  /// Packets under one association, 2^16 to 2^32.
  public var packets: UInt64
  /// Bytes under one association.
  public var bytes: UInt64

  public init(time: Duration = .seconds(3600), packets: UInt64 = 1 << 32, bytes: UInt64 = 1 << 40) {
    self.time = time
    self.packets = packets
    self.bytes = bytes
  }

  /// Within reason, whatever was said.
  var usableTime: Double { min(max(time.inSeconds, 1), 86_400) }
}
