/// A fast 64-bit digest of a stream of bytes, equal however the stream was cut into pieces.
///
/// It detects lost, doubled, moved and altered bytes (four independent multiply-and-rotate lanes over 32-byte
/// blocks, in the manner of the xxHash family); it is no protection against a forger, and ESP already is.
public struct StreamDigest: Sendable {
  private var lanes: (UInt64, UInt64, UInt64, UInt64) = (
    0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4F, 0x1656_67B1_9E37_79F9, 0x85EB_CA77_C2B2_AE63
  )
  /// Bytes that do not fill a block yet.
  private var rest: [UInt8] = []
  public private(set) var count: UInt64 = 0

  public init() {}

  @inline(__always) private static func mix(_ lane: UInt64, _ word: UInt64) -> UInt64 {
    let x = lane &+ word &* 0xC2B2_AE3D_27D4_EB4F
    return (x << 31 | x >> 33) &* 0x9E37_79B1_85EB_CA87
  }

  private mutating func blocks(_ bytes: UnsafeRawBufferPointer) {
    var (a, b, c, d) = lanes
    var offset = 0
    while offset &+ 32 <= bytes.count {
      a = StreamDigest.mix(a, unsafe bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self).littleEndian)
      b = StreamDigest.mix(b, unsafe bytes.loadUnaligned(fromByteOffset: offset &+ 8, as: UInt64.self).littleEndian)
      c = StreamDigest.mix(c, unsafe bytes.loadUnaligned(fromByteOffset: offset &+ 16, as: UInt64.self).littleEndian)
      d = StreamDigest.mix(d, unsafe bytes.loadUnaligned(fromByteOffset: offset &+ 24, as: UInt64.self).littleEndian)
      offset &+= 32
    }
    lanes = (a, b, c, d)
  }

  public mutating func update(_ bytes: UnsafeRawBufferPointer) {
    count &+= UInt64(bytes.count)
    var start = 0
    if !rest.isEmpty {
      start = min(32 - rest.count, bytes.count)
      unsafe rest.append(contentsOf: bytes[..<start])
      guard rest.count == 32 else { return }
      let full = rest
      unsafe full.withUnsafeBytes { unsafe blocks($0) }
      rest.removeAll(keepingCapacity: true)
    }
    let whole = (bytes.count - start) / 32 * 32
    unsafe blocks(UnsafeRawBufferPointer(rebasing: bytes[start..<start + whole]))
    unsafe rest.append(contentsOf: bytes[(start + whole)...])
  }

  public mutating func update(_ bytes: [UInt8]) { unsafe bytes.withUnsafeBytes { unsafe update($0) } }

  /// The digest of everything so far.
  public var value: UInt64 {
    var result = count
    for lane in [lanes.0, lanes.1, lanes.2, lanes.3] { result = StreamDigest.mix(result ^ lane, lane) }
    for (index, byte) in rest.enumerated() { result = StreamDigest.mix(result, UInt64(byte) &+ UInt64(index) &<< 8) }
    return result ^ result >> 29
  }
}

/// A reproducible source of numbers (SplitMix64).
public struct SplitMix64: RandomNumberGenerator, Sendable {
  private var state: UInt64
  public init(seed: UInt64) { state = seed }
  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z >> 31
  }
}
