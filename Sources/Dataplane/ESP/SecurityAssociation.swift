import PacketIO

/// The sending side of an association: its key and the sequence numbers that were not used yet.
///
/// What every packet needs comes first, on two cache lines.
struct OutboundAssociation: ~Copyable {
  let spi: UInt32
  let extended: Bool
  let implicitIV: Bool
  let copiesDSCP: Bool
  let aead: AEAD
  /// The next sequence number. It only ever grows, so that no nonce repeats (invariant 1).
  private(set) var next: UInt64
  /// What the lease allowed when it was last read; without a lease, everything.
  private var leased: UInt64
  /// The last number the association may ever use (RFC 4303 §2.2, §3.3.3).
  private(set) var last: UInt64
  /// When `next` gets here, the lease is told how far the numbers are.
  private var noteAt: UInt64
  /// When `next` gets here, the embedder is to be told; then again when the numbers are used up; then no more.
  private var warnAt: UInt64?
  var packets: UInt64 = 0
  var bytes: UInt64 = 0
  private(set) var lease: SequenceLease?
  /// Tells keys apart without keeping them.
  let fingerprint: KeyFingerprint
  let configuration: SecurityAssociationConfiguration
  /// Bytes of the first fields.
  static let hotBytes = 128

  init(_ configuration: SecurityAssociationConfiguration, aead: consuming AEAD) {
    self.configuration = configuration
    spi = configuration.spi
    extended = configuration.extendedSequenceNumbers
    implicitIV = configuration.implicitIV
    copiesDSCP = configuration.copiesDSCP
    self.aead = aead
    fingerprint = configuration.key.fingerprint
    next = max(configuration.firstSequence, 1)
    lease = configuration.lease
    leased = lease?.limit ?? UInt64.max
    noteAt = lease == nil && configuration.lifetime == nil ? UInt64.max : 0
    let numbers = extended ? UInt64.max - 1 : UInt64(UInt32.max)
    last = min(configuration.lifetime?.packets ?? numbers, numbers)
    warnAt = configuration.lifetime.map { min($0.softPackets, last) } ?? last - (extended ? 1 << 48 : 1 << 28)
  }

  /// Continues the numbers of another association that sealed under the same key.
  mutating func resume(from other: UInt64) { next = max(next, other) }

  /// The peer refuses numbers up to `highest`: goes on above, as soon as the lease allows that. False: it goes on above
  /// anyway.
  mutating func skip(to highest: UInt64) -> Bool {
    guard highest >= next, highest < last else { return false }
    next = highest + 1
    noteUsed()
    return true
  }

  /// Goes on under another lease, or without one.
  mutating func renew(_ lease: SequenceLease?) {
    noteUsed()
    self.lease = lease
    leased = lease?.limit ?? UInt64.max
    noteAt = lease == nil && configuration.lifetime == nil ? UInt64.max : 0
  }

  /// Packets between two looks at the bytes.
  private static let bytesLag: UInt64 = 4096

  /// Tells the lease how far the numbers are, and looks whether the key is worn.
  @inline(never)
  mutating func noteUsed() {
    if let lifetime = configuration.lifetime {
      noteAt = next &+ OutboundAssociation.bytesLag
      if bytes >= lifetime.softBytes, let mark = warnAt, mark <= last { warnAt = min(mark, next) }
      if bytes >= lifetime.bytes, next <= last {
        last = next &- 1
        warnAt = next
      }
    }
    guard let lease else { return }
    lease.note(used: next &- 1)
    noteAt = next &+ SequenceLease.lag
  }

  /// True once when the numbers are running out, and once more when none is left.
  @inline(__always)
  mutating func takeWarning() -> Bool {
    guard let mark = warnAt, next >= mark else { return false }
    warnAt = mark > last ? nil : last &+ 1
    return true
  }

  /// Numbers behind the next within which a quoted packet counts as recent: some tenths of a second at line rate.
  static let recentNumbers: UInt32 = 1 << 17

  /// Whether a packet that somebody quotes was sent under this association, not long ago.
  func isRecent(_ quote: QuotedPacket) -> Bool {
    let age = UInt32(truncatingIfNeeded: next) &- quote.sequence
    return quote.spi == spi && age > 0 && age <= min(OutboundAssociation.recentNumbers, UInt32(clamping: packets))
  }

  var remaining: UInt64 { next > last ? 0 : last - next + 1 }

  /// Takes `count` consecutive numbers, all or none.
  @inline(__always)
  mutating func claim(_ count: Int) -> Claim {
    let claim = mayClaim(count)
    guard case .granted = claim else { return claim }
    next &+= UInt64(truncatingIfNeeded: count)
    if next &- 1 > leased { leased = lease?.limit ?? UInt64.max }
    if next >= noteAt { noteUsed() }
    return claim
  }

  /// What `claim` would say.
  @inline(__always)
  func mayClaim(_ count: Int) -> Claim {
    let n = UInt64(truncatingIfNeeded: count)
    guard next <= last, last &- next >= n &- 1 else { return .refused(.sequenceExhausted) }
    guard next &+ (n &- 1) <= leased || next &+ (n &- 1) <= lease?.limit ?? UInt64.max else {
      return .refused(.sequenceNotLeased)
    }
    return .granted(next)
  }

  enum Claim {
    case granted(UInt64)
    case refused(DropReason)
  }
}

/// The receiving side of an association: its key and what was seen already.
///
/// What every packet needs comes first, on two cache lines.
struct InboundAssociation: ~Copyable {
  let spi: UInt32
  let extended: Bool
  let implicitIV: Bool
  /// Packets have failed, one after the other.
  private(set) var isSearching = false
  let aead: AEAD
  var packets: UInt64 = 0
  var window: ReplayWindow
  var bytes: UInt64 = 0
  /// When the window gets here, the lease is told how far it is.
  private(set) var noteAt: UInt64
  /// The first packet under an ephemeral key is yet to come, or to be told of.
  private(set) var isUntold: Bool
  var drops: (replayed: UInt64, authenticationFailed: UInt64) = (0, 0)
  private(set) var search = SequenceSearch()
  /// Where the highest number accepted is noted.
  private(set) var lease: SequenceLease?
  /// Tells keys apart without keeping them.
  let fingerprint: KeyFingerprint
  /// Of the fingerprint, what fits a number: tells fragments of different associations apart.
  let tag: UInt64
  let configuration: SecurityAssociationConfiguration
  /// Bytes of the first fields.
  static let hotBytes = 128

  init(_ configuration: SecurityAssociationConfiguration, aead: consuming AEAD) {
    self.configuration = configuration
    spi = configuration.spi
    extended = configuration.extendedSequenceNumbers
    implicitIV = configuration.implicitIV
    self.aead = aead
    lease = configuration.lease
    isUntold = configuration.isEphemeral
    noteAt = lease == nil && !isUntold ? UInt64.max : 0
    fingerprint = configuration.key.fingerprint
    tag = fingerprint.tag
    window = ReplayWindow(
      size: configuration.replayWindow, extended: extended, lowest: max(configuration.firstSequence, 1))
  }

  /// Goes on where another association stopped that opened under the same key: what that one may have accepted,
  /// this one refuses.
  mutating func resume(after highest: UInt64) {
    guard highest > window.highest else { return }
    window = ReplayWindow(
      size: configuration.replayWindow, extended: extended, lowest: highest == UInt64.max ? highest : highest + 1)
  }

  /// Goes on under another lease, or without one.
  mutating func renew(_ lease: SequenceLease?) {
    noteHighest()
    self.lease = lease
    noteAt = lease == nil ? UInt64.max : 0
  }

  /// Tells the lease which number is the highest that was accepted.
  @inline(never)
  mutating func noteHighest() {
    if isSearching { endSearch() }
    noteAt = isUntold ? 0 : UInt64.max
    guard let lease else { return }
    lease.note(used: window.highest)
    noteAt = window.highest &+ SequenceLease.lag
  }

  /// Its first packet was told of.
  mutating func noteTold() { isUntold = false }

  /// A packet was refused.
  mutating func noteRefusal() {
    search.noteFailure(highest: window.highest)
    isSearching = search.isOn
    // So that the next packet that is accepted ends it.
    if isSearching { noteAt = 0 }
  }

  /// Opens a copy of a packet under another number than `inferred`, if it is time to.
  /// - Returns: the number the packet has, as far as is known, and whether it is authentic although the window refuses it.
  func tryAnother(_ inferred: UInt64, _ datagram: PacketBytes, _ pool: BufferPool) -> (sequence: UInt64, isBehind: Bool)
  {
    guard let candidate = search.candidate(inferred: inferred, extended: extended), let buffer = pool.take() else {
      return (inferred, false)
    }
    defer { pool.release(buffer) }
    let copy = pool.bytes(buffer).slice(0, datagram.count)
    copy.copy(datagram, to: 0)
    let iv = implicitIV ? candidate : datagram.load64(ESPPacket.headerLength)
    let data = AdditionalData(spi: spi, sequence: candidate, extended: extended)
    guard aead.open(iv: iv, data, inPlace: copy.dropFirst(frontLength)) else { return (inferred, false) }
    return window.mayAccept(candidate) ? (candidate, false) : (inferred, true)
  }

  /// An authentic packet lies below the window. True for the first.
  mutating func noteBehind() -> Bool { search.noteBehind() }

  private mutating func endSearch() {
    search.end()
    isSearching = false
  }

  /// Bytes in front of the ciphertext.
  @inline(__always)
  var frontLength: Int { ESPPacket.headerLength &+ (implicitIV ? 0 : ESPPacket.ivLength) }
}
