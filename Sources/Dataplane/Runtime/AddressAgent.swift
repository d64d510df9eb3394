import PacketIO
import Synchronization

/// What others have to say to those who negotiate addresses.
final class AddressInbox: Sendable {
  enum Input: Sendable {
    /// A control message of this purpose.
    case message(peer: String, type: UInt8, body: [UInt8])
    /// A peer has shown itself, at another place than before.
    case heard(peer: String)
    /// It is time to look, or the configuration is another.
    case tick
    /// One peer's configuration is another.
    case changed(peer: String)

    init(_ notice: NegotiationNotice) {
      self =
        switch notice {
        case .message(let peer, let type, let body): .message(peer: peer, type: type, body: body)
        case .heard(let peer): .heard(peer: peer)
        }
    }
  }

  /// Inputs that can wait. Beyond them the oldest is lost, as any message may be.
  private static let capacity = 1024

  let stream: AsyncStream<Input>
  private let continuation: AsyncStream<Input>.Continuation
  /// Counts configurations: an input may be lost, this is not.
  private let configurations = Atomic<UInt64>(1)
  /// Who takes them, until `close`.
  let agent = Mutex<AddressAgent?>(nil)

  init() {
    (stream, continuation) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(AddressInbox.capacity))
  }

  /// Never blocks.
  func put(_ input: Input) {
    // What is lost of one peer's configuration is found by looking at all.
    if case .dropped(.changed) = continuation.yield(input) {
      configurations.wrappingAdd(1, ordering: .sequentiallyConsistent)
    }
  }

  func putConfiguration() {
    configurations.wrappingAdd(1, ordering: .sequentiallyConsistent)
    put(.tick)
  }

  func putConfiguration(of peer: String) { put(.changed(peer: peer)) }

  var configurationNumber: UInt64 { configurations.load(ordering: .sequentiallyConsistent) }

  func close() {
    continuation.finish()
    agent.withLock { $0 = nil }
  }
}

/// Negotiates addresses with peers for a dataplane: gives `AddressCoordination` messages, time and randomness, sends
/// what it says, and has the dataplane adopt what was agreed. Lives until the inbox is closed.
actor AddressAgent {
  private let inbox: AddressInbox
  private weak var dataplane: Dataplane?
  private var coordination = AddressCoordination()
  /// Of the configuration that is negotiated for; 0: none yet.
  private var configurationNumber: UInt64 = 0
  /// Prefixes of peers, in whatever mode, as the negotiations know them.
  private var prefixes: [String: [Prefix]] = [:]
  private var random = SystemRandomNumberGenerator()
  private var timer: Task<Void, Never>?
  /// Peers whose agreement is not in force yet.
  private var waiting: Set<String> = []
  /// When to try again to put in force what was agreed.
  private var retry: MonotonicTime?
  private var earliest = MonotonicTime(nanoseconds: 0)

  private static let retryInterval: UInt64 = 5_000_000_000
  /// Between two changes of what is in force: each takes routes and tables, and a peer may change its mind as often as
  /// it likes.
  private static let pace: UInt64 = 1_000_000_000

  init(inbox: AddressInbox, dataplane: Dataplane) {
    self.inbox = inbox
    self.dataplane = dataplane
  }

  func run() async {
    inbox.put(.tick)
    for await input in inbox.stream { await handle(input) }
    timer?.cancel()
  }

  /// Who has how much of the pool.
  func shares() -> [Statistics.Share] { coordination.shares }

  private func handle(_ input: AddressInbox.Input) async {
    let now = MonotonicTime.current()
    let number = inbox.configurationNumber
    if number != configurationNumber {
      guard let configuration = dataplane?.configuration else { return }
      configurationNumber = number
      prefixes = Dictionary(configuration.peers.map { ($0.name, $0.prefixes) }) { $1 }
      coordination.update(configuration, now: now, random: &random)
    }
    switch input {
    case .message(let peer, let type, let body): coordination.receive(body, type: type, from: peer, now: now)
    case .heard(let peer): coordination.nudge(peer, now: now)
    case .tick: break
    case .changed(let peer):
      guard let known = dataplane?.negotiationTerms(peer) else { return }
      let before = prefixes[peer] ?? []
      prefixes[peer] = known.terms == nil && known.prefixes.isEmpty ? nil : known.prefixes
      coordination.update(peer, known.terms, prefixes: (old: before, new: known.prefixes), now: now, random: &random)
    }
    for message in coordination.poll(now: now) { dataplane?.send(message) }
    waiting.formUnion(coordination.takeChanges())
    if !waiting.isEmpty, retry == nil, now < earliest { retry = earliest }
    if retry.map({ $0 <= now }) ?? !waiting.isEmpty { await putInForce(now: now) }
    arm()
  }

  private func putInForce(now: MonotonicTime) async {
    retry = nil
    let changes = waiting.sorted().map { (peer: $0, agreement: coordination.agreement(with: $0) ?? AddressAgreement()) }
    do {
      try await dataplane?.apply(agreements: changes)
      waiting = []
      earliest = now.adding(nanoseconds: AddressAgent.pace)
    } catch let error as SystemError {
      retry = now.adding(nanoseconds: AddressAgent.retryInterval)
      dataplane?.report(.addressesNotInForce(error))
    } catch {
      // It has stopped.
    }
  }

  private func arm() {
    timer?.cancel()
    timer = nil
    guard let deadline = [coordination.nextDeadline, retry].compactMap(\.self).min() else { return }
    let wait = deadline.nanoseconds(since: .current())
    timer = Task { [inbox] in
      guard (try? await Task.sleep(nanoseconds: max(wait, 1_000_000))) != nil else { return }
      inbox.put(.tick)
    }
  }
}
