import CLinux

/// A request to the kernel's routing tables (rtnetlink(7)): a fixed header, then attributes.
struct NetlinkRequest {
  let type: UInt16
  let flags: UInt16
  private var body: KernelBytes

  /// - Parameter header: the structure that `type` begins with, for example `ifinfomsg`.
  init(_ type: Int, flags: Int32 = 0, header: KernelBytes) {
    self.type = UInt16(type)
    self.flags = UInt16(flags)
    body = header
  }

  mutating func add(_ attribute: Int, _ value: KernelBytes) { body.addAttribute(attribute, value) }
  mutating func add(_ attribute: Int, _ value: UInt32) { add(attribute, KernelBytes { $0.add(value) }) }

  /// The whole message: `struct nlmsghdr` and the body.
  func encoded(sequence: UInt32, extraFlags: Int32) -> [UInt8] {
    var message = KernelBytes()
    message.add(UInt32(netlinkHeaderLength + body.bytes.count))
    message.add(type)
    message.add(flags | UInt16(extraFlags))
    message.add(sequence)
    message.add(UInt32(0))
    return message.bytes + body.bytes
  }
}

/// One message that came back.
struct NetlinkReply {
  let type: Int32
  let flags: Int32
  let sequence: UInt32
  let body: ArraySlice<UInt8>

  /// Cuts a datagram into its messages; what is malformed ends it.
  static func split(_ datagram: ArraySlice<UInt8>) -> [NetlinkReply] {
    var rest = datagram
    var replies: [NetlinkReply] = []
    while let length = rest.native(0, UInt32.self).map(Int.init), length >= netlinkHeaderLength, length <= rest.count,
      let type = rest.native(4, UInt16.self), let flags = rest.native(6, UInt16.self),
      let sequence = rest.native(8, UInt32.self)
    {
      let body = rest.dropFirst(netlinkHeaderLength).prefix(length - netlinkHeaderLength)
      replies.append(NetlinkReply(type: Int32(type), flags: Int32(flags), sequence: sequence, body: body))
      rest = rest.dropFirst(aligned(length))
    }
    return replies
  }

  /// The attributes behind a fixed header of `headerLength` bytes.
  func attributes(after headerLength: Int) -> [Int: ArraySlice<UInt8>] { body.dropFirst(headerLength).attributes() }
}

/// Bytes of `struct nlmsghdr`.
private let netlinkHeaderLength = 16
/// Bytes of `struct rtattr` and `struct nlattr`.
private let attributeHeaderLength = 4
/// Messages and attributes begin at multiples of four.
private func aligned(_ length: Int) -> Int { (length + 3) & ~3 }

/// Bytes laid out as the kernel lays out its structures: integers in host byte order, no hidden padding.
struct KernelBytes {
  private(set) var bytes: [UInt8] = []

  init() {}
  init(_ fill: (inout KernelBytes) -> Void) { fill(&self) }
  init(_ bytes: [UInt8]) { self.bytes = bytes }

  mutating func add<T: FixedWidthInteger>(_ value: T) {
    let value = value.littleEndian
    for byte in 0..<T.bitWidth / 8 { bytes.append(UInt8(truncatingIfNeeded: value >> T(byte * 8))) }
  }

  /// A string with its terminating zero.
  mutating func add(_ text: String) { bytes += Array(text.utf8) + [0] }

  mutating func addAttribute(_ type: Int, _ value: KernelBytes) {
    add(UInt16(attributeHeaderLength + value.bytes.count))
    add(UInt16(type))
    bytes += value.bytes
    bytes += [UInt8](repeating: 0, count: aligned(bytes.count) - bytes.count)
  }
}

extension ArraySlice<UInt8> {
  /// An integer in host byte order, `offset` bytes from the start of the slice; nil when it does not fit.
  func native<T: FixedWidthInteger>(_ offset: Int, _ type: T.Type) -> T? {
    let size = T.bitWidth / 8
    guard offset >= 0, offset <= count - size else { return nil }
    var value: T = 0
    for byte in 0..<size { value |= T(truncatingIfNeeded: self[startIndex + offset + byte]) << T(byte * 8) }
    return T(littleEndian: value)
  }

  /// Attributes by type, the last of each; what is malformed ends the list.
  func attributes() -> [Int: ArraySlice<UInt8>] {
    var rest = self
    var found: [Int: ArraySlice<UInt8>] = [:]
    while let length = rest.native(0, UInt16.self).map(Int.init), length >= attributeHeaderLength,
      length <= rest.count, let type = rest.native(2, UInt16.self)
    {
      // The two top bits tell nesting and byte order, not the type.
      found[Int(type & 0x3FFF)] = rest.dropFirst(attributeHeaderLength).prefix(length - attributeHeaderLength)
      rest = rest.dropFirst(aligned(length))
    }
    return found
  }

  /// Text up to its terminating zero.
  var text: String { String(decoding: prefix { $0 != 0 }, as: UTF8.self) }
}
