import Identity
import KeyDerivation
import PacketIO

/// New keys for a session that has some: both sides' UPDATEs, whoever began (RFC 7402 §6.8 to §6.10).
///
/// 1. A side sends an UPDATE with a new SPI and a new Diffie-Hellman value.
/// 2. Who has both sides' values has the new keys. It accepts packets under them, and only then acknowledges.
/// 3. A side seals under the new keys once its own UPDATE was acknowledged, or a packet has come under them: before,
///    the other one might not accept them yet.
///
/// When both begin at once, each one's UPDATE is the other's answer. With a key encapsulation whoever begins sends
/// its key in two UPDATEs, and gets the ciphertext in two; when both begin, the key of the side with the greater tag is
/// taken.
struct Rekey {
  /// What one side has said.
  struct Half {
    /// Of its UPDATEs: one, or two with an encapsulation.
    var numbers: [UInt32]
    var spi: UInt32
    var publicValue: [UInt8]
    /// A key or a ciphertext, and the pieces that it comes in.
    var pieces: [KEMPart] = []

    /// What went over the wire, of which the keys are a function too.
    func transcript(old: UInt32) -> [UInt8] {
      ESPInfo(index: 0, old: old, new: spi).content + publicValue + pieces.flatMap(\.content)
    }
  }

  let began: MonotonicTime
  let key: DiffieHellmanKey
  var own: Half
  /// As they are sent, and again.
  var packets: [[UInt8]] = []
  var retry: Retry
  var peer: Half?
  /// This side's key of an encapsulation that awaits its ciphertext.
  var openCiphertext: (@Sendable ([UInt8]) -> KeyMaterial?)?
  /// What the encapsulation came to.
  var encapsulated: KeyMaterial?
  /// Of its own numbers those that the peer has acknowledged, which it does when it accepts the new keys.
  var acknowledged: Set<UInt32> = []
  var isAcknowledged: Bool { own.numbers.allSatisfy(acknowledged.contains) }
  /// The new keys are accepted here, and are those of the session.
  var isInstalled = false
  /// They are sealed under too.
  var isUsed = false
  /// The SPIs that go when that is over.
  let oldSPIs: [UInt32]
  let oldInboundSPI: UInt32
  let oldOutboundSPI: UInt32
}

extension Rekey {
  /// Notes what the peer acknowledges of keys that are accepted here.
  /// - Returns: whether that is all by now.
  mutating func isAcknowledged(by numbers: [UInt32]) -> Bool {
    guard isInstalled else { return false }
    acknowledged.formUnion(numbers.filter(own.numbers.contains))
    return isAcknowledged
  }
}

// MARK: The pieces of an encapsulation

extension Rekey {
  /// Puts a piece to the peer's others.
  /// - Returns: the whole key or ciphertext; nil: it is not complete, or not taken.
  mutating func take(
    _ piece: KEMPart, isKey: Bool, _ number: UInt32, _ spi: UInt32, _ publicValue: [UInt8], isGreater: Bool
  ) -> [UInt8]? {
    var peer = peer
    if isKey, openCiphertext != nil {
      // Both have begun: the key of the side with the greater tag is taken.
      guard !isGreater else { return nil }
      openCiphertext = nil
      own.pieces = []
      peer = nil
    }
    if peer?.spi != spi || peer?.publicValue != publicValue {
      peer = Half(numbers: [], spi: spi, publicValue: publicValue)
    }
    self.peer = peer
    guard var peer, !peer.pieces.contains(where: { $0.part == piece.part }) else { return nil }
    peer.numbers.append(number)
    peer.pieces.append(piece)
    peer.pieces.sort { $0.part < $1.part }
    self.peer = peer
    return peer.pieces.count == Int(truncatingIfNeeded: KEMPart.parts) ? peer.pieces.flatMap(\.bytes) : nil
  }

  /// False: it is no key.
  mutating func encapsulate(to key: [UInt8], _ kem: any KeyEncapsulation, _ session: inout Session) -> Bool {
    guard let (ciphertext, secret) = kem.encapsulate(to: key) else { return false }
    encapsulated = secret
    own.pieces = KEMPart.cut(ciphertext, kem.mechanism)
    own.numbers = session.takeNumbers(own.pieces.count)
    return true
  }

  /// False: it is no ciphertext, or nobody has asked for one.
  mutating func open(_ ciphertext: [UInt8]) -> Bool {
    guard let secret = openCiphertext?(ciphertext) else { return false }
    encapsulated = secret
    return true
  }
}

extension KEMPart {
  /// Whether it is a piece of a key, or of a ciphertext; nil: of neither.
  func isKey(of kem: any KeyEncapsulation) -> Bool? {
    guard mechanism == UInt16(truncatingIfNeeded: kem.mechanism), parts == KEMPart.parts,
      (1...KEMPart.parts).contains(part)
    else { return nil }
    let length = bytes.count * Int(truncatingIfNeeded: parts)
    return length == kem.keyLength ? true : length == kem.ciphertextLength ? false : nil
  }
}

/// When something that got no answer is sent again.
struct Retry {
  private(set) var tries = 1
  private(set) var next: MonotonicTime
  private var interval: UInt64
  private let longest: UInt64

  /// - Parameter first: nanoseconds to the second try; doubled each time, up to `longest`.
  init(first: UInt64, longest: UInt64 = UInt64.max, now: MonotonicTime) {
    interval = first
    self.longest = longest
    next = now.adding(nanoseconds: first)
  }

  mutating func again(now: MonotonicTime) {
    tries += 1
    interval = min(interval * 2, longest)
    next = now.adding(nanoseconds: interval)
  }
}
