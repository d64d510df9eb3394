import Dataplane
import Foundation
import Identity
import KeyAgreement
import Logging
import PacketIO
import Synchronization
import Transports

/// Keeps a gateway enrolled at its relays, and has partners announced there when a relay knows it, or knows it again.
actor RelayAgent {
  private let dataplane: Dataplane
  private let keys: KeyAgent
  private let filter: RelayFilter
  private let logger: Logger
  private var sessions: [EnrolmentSession] = []
  /// Why each relay is not enrolled at, as the log was told.
  private var told: [PlannedRelay: String] = [:]
  /// Where this gateway takes datagrams, as far as it knows itself.
  private var own: [Endpoint] = []
  /// Where partners that relays lead to were told last that it is.
  private var introduced: [Endpoint] = []
  /// Peers whose packets may go by a relay.
  private var peers: [String] = []
  /// Sealed packets to each when it was looked at last.
  private var counts: [String: UInt64] = [:]
  private var nextPeer = 0
  private var random = SystemRandomNumberGenerator()
  private var alarm: Task<Void, Never>?
  private var watch: Task<Void, Never>?
  private var reader: Task<Void, Never>?

  /// Peers that are asked about at a time.
  private static let peersAtOnce = 16

  init(_ dataplane: Dataplane, _ keys: KeyAgent, _ filter: RelayFilter, _ logger: Logger) {
    self.filter = filter
    self.dataplane = dataplane
    self.keys = keys
    self.logger = logger
  }

  /// Enrols at these relays, and at no others any more.
  func set(_ plan: GatewayPlan) async {
    peers = plan.peers.filter { $0.keys?.partner.relays.isEmpty == false }.map(\.configuration.name)
    counts = counts.filter { peers.contains($0.key) }
    own = plan.locators()
    filter.set(plan.identity == nil ? [] : plan.relays.map(\.path))
    guard let identity = plan.identity else {
      if let before = sessions.first?.identity { await keys.set(relays: [], local: before.tag) }
      sessions = []
      return
    }
    sessions = plan.relays.map { relay in
      // Who it is now, and what it shows, the relay has to be told anew.
      sessions.first { $0.relay == relay && $0.identity.tag == identity.tag }
        ?? EnrolmentSession(relay, identity, now: .current())
    }
    await keys.set(relays: plan.relays.map(\.gid), local: identity.tag)
    guard !sessions.isEmpty else { return }
    start()
    work()
  }

  /// This gateway's addresses have changed.
  func follow(own locators: [Endpoint]) async {
    own = locators
    await introduce()
  }

  func stop() {
    for task in [alarm, watch, reader] { task?.cancel() }
  }

  /// How each enrolment stands, for `culvert show`.
  func reports() -> [RelayStatus] { sessions.map { RelayStatus($0) } }

  /// What translates this gateway's addresses, for `culvert show`.
  func translators() -> [TranslatorFinding] { TranslatorFinding.all(of: observations, own: own) }

  private var observations: [TranslatorFinding.Observation] {
    sessions.compactMap { session in
      guard session.isEnrolled, session.relay.kind == .udp, let seen = session.seen else { return nil }
      return TranslatorFinding.Observation(relay: session.relay.endpoint.address, seen: seen)
    }
  }

  private func start() {
    guard reader == nil else { return }
    let messages = keys.others
    reader = Task { [weak self] in for await message in messages { await self?.take(message) } }
    watch = Task { [weak self] in
      while !Task.isCancelled {
        try? await Task.sleep(for: .milliseconds(500))
        await self?.lookForTraffic()
      }
    }
  }

  // MARK: What comes, and what is due

  private func take(_ message: PathMessage) async {
    guard let place = sessions.firstIndex(where: { $0.relay.path == message.path }) else { return }
    let step = sessions[place].receive(message.bytes, now: .current(), wall: RelayAgent.wall(), using: &random)
    if let step { await follow(step, place) }
    await introduce()
    work()
  }

  /// Has partners told where relays see this gateway, when that is news: they may get through to it there.
  private func introduce() async {
    let seen = observations.map(\.seen)
    let places = seen.isEmpty ? [] : seen + own
    guard places != introduced else { return }
    introduced = places
    await keys.set(reflexive: places)
  }

  /// Something could not be sent along a path, or a stream has ended: if it leads to a relay, that is begun with anew.
  func failed(_ path: Path) async {
    guard let place = sessions.firstIndex(where: { $0.relay.path == path }),
      let step = sessions[place].streamEnded(now: .current(), using: &random)
    else { return }
    await follow(step, place)
    work()
  }

  private static func wall() -> UInt64 {
    UInt64(max(Date().timeIntervalSince1970, 0) * 1e6) &* 1000
  }

  private func ring() {
    alarm = nil
    work()
  }

  private func work() {
    for place in sessions.indices {
      while let step = sessions[place].poll(now: .current(), using: &random) {
        Task { await self.follow(step, place) }
        if case .lost = step { break }
      }
    }
    alarm?.cancel()
    alarm = nil
    guard let deadline = sessions.map(\.deadline).min() else { return }
    let wait = max(deadline.nanoseconds(since: .current()), 1_000_000)
    alarm = Task { [weak self] in
      try? await Task.sleep(for: .nanoseconds(Int64(clamping: wait)))
      if !Task.isCancelled { await self?.ring() }
    }
  }

  private func follow(_ step: EnrolmentSession.Step, _ place: Int) async {
    guard sessions.indices.contains(place) else { return }
    let relay = sessions[place].relay
    let metadata: Logger.Metadata = [
      "relay": "\(relay.gid)", "at": "\(relay.endpoint)", "transport": "\(relay.kind.rawValue)",
    ]
    switch step {
    case .send(let bytes): dataplane.send(message: bytes, along: relay.path)
    case .enrolled:
      let seen = sessions[place].seen.map { "\($0)" } ?? ""
      told[relay] = nil
      logger.notice("enrolled at the relay", metadata: metadata.merging(["seen-as": "\(seen)"]) { $1 })
      await keys.announce(along: relay.path)
    case .lost(let why):
      guard told.updateValue(why, forKey: relay) != why else { return }
      logger.warning("not enrolled at the relay", metadata: metadata.merging(["reason": "\(why)"]) { $1 })
    }
  }

  /// Which relays carry traffic now: they are looked after more closely.
  private func lookForTraffic() async {
    let names = peers
    for place in 0..<min(names.count, RelayAgent.peersAtOnce) {
      let name = names[(nextPeer + place) % names.count]
      guard let peer = await dataplane.statistics(of: name) else { continue }
      let before = counts.updateValue(peer.sent.packets, forKey: name)
      guard let before, peer.sent.packets > before, let path = peer.path else { continue }
      for place in sessions.indices where sessions[place].relay.endpoint == path {
        sessions[place].busy(now: .current())
      }
    }
    nextPeer = names.isEmpty ? 0 : (nextPeer + RelayAgent.peersAtOnce) % names.count
    work()
  }
}

/// How a gateway's enrolment at a relay stands.
public struct RelayStatus: Codable, Sendable, Equatable {
  /// The relay's GID.
  public var gid: String
  /// Where it is.
  public var address: String
  /// By which transport: "udp", "tcp", "tls".
  public var transport: String
  public var isEnrolled: Bool
  /// Where the relay sees this gateway: behind a translator, where that is; nil: it has never said.
  public var seenAs: String?
  /// Why it is not enrolled, as far as is known.
  public var problem: String?

  init(_ session: EnrolmentSession) {
    gid = "\(session.relay.gid)"
    address = "\(session.relay.endpoint)"
    transport = session.relay.kind.rawValue
    isEnrolled = session.isEnrolled
    seenAs = session.seen.map { "\($0)" }
    problem = session.problem
  }
}
