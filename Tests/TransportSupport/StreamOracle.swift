/// What a stream's bytes mean, said slowly: all of them at once, byte by byte (RFC 9329 §3, §4).
package struct StreamOracle: Equatable {
  package var packets: [[UInt8]] = []
  package var keepAlives: UInt64 = 0
  package var keyExchange: UInt64 = 0
  package var tooShort: UInt64 = 0
  package var badPrefix: UInt64 = 0
  package var badLength: UInt64 = 0

  package init() {}

  package init(_ bytes: [UInt8], isOriginator: Bool = false) {
    var rest = bytes[...]
    if !isOriginator {
      for expected in "IKETCP".utf8 {
        guard let byte = rest.popFirst() else { return }
        guard byte == expected else {
          badPrefix = 1
          return
        }
      }
    }
    while rest.count >= 2 {
      let length = Int(rest[rest.startIndex]) * 256 + Int(rest[rest.startIndex + 1])
      guard length >= 2 else {
        badLength = 1
        return
      }
      guard rest.count >= length else { return }
      let payload = Array(rest.dropFirst(2).prefix(length - 2))
      rest = rest.dropFirst(length)
      if payload == [0xFF] {
        keepAlives += 1
      } else if payload.count < 4 {
        tooShort += 1
      } else if payload.starts(with: [0, 0, 0, 0]) {
        keyExchange += 1
      } else {
        packets.append(payload)
      }
    }
  }

  package static func record(_ payload: [UInt8]) -> [UInt8] {
    [UInt8((payload.count + 2) >> 8), UInt8((payload.count + 2) & 255)] + payload
  }
}
