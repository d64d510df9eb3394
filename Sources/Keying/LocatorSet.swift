import Identity
import PacketIO

/// Where a side says that it is: LOCATOR_SET (RFC 8046 §4).
///
/// An address without a port says little where everything goes over UDP, so locators of type 2 are written, which have
/// one (RFC 9028 §5.7). Programs by others may know types 0 and 1 only, which are read too.
struct LocatorSet: Equatable {
  /// The preferred one first.
  let endpoints: [Endpoint]

  /// So many are told of, and believed.
  static let most = 8
  /// Seconds.
  private static let lifetime: UInt32 = 3600
  private static let udp: UInt8 = 17

  /// What cannot be a locator is left out.
  init(_ endpoints: some Sequence<Endpoint>) {
    var chosen: [Endpoint] = []
    for endpoint in endpoints where chosen.count < LocatorSet.most && endpoint.isLocator {
      if !chosen.contains(endpoint) { chosen.append(endpoint) }
    }
    self.endpoints = chosen
  }

  /// Locators for data that are good for something; of types that are not known here, none.
  /// - Parameter port: of locators that have none.
  init?(_ content: ArraySlice<UInt8>?, port: UInt16) {
    guard var reader = content.map({ ByteReader($0) }) else { return nil }
    var endpoints: [Endpoint] = []
    while !reader.isAtEnd {
      guard let use = reader.byte(), let type = reader.byte(), let words = reader.byte(), reader.skip(1),
        let lifetime = reader.number(UInt32.self), let locator = reader.take(4 * Int(truncatingIfNeeded: words))
      else { return nil }
      // Traffic type 1 is for packets of the handshake alone.
      guard use != 1, lifetime > 0, let endpoint = Endpoint(locator: locator, type: type, port: port) else { continue }
      endpoints.append(endpoint)
    }
    self.init(endpoints)
  }

  /// - Parameters:
  ///   - spi: under which packets are accepted there.
  ///   - isForeign: for a program by others: of type 1.
  func content(spi: UInt32, isForeign: Bool) -> [UInt8] {
    var bytes: [UInt8] = []
    for (place, endpoint) in endpoints.enumerated() {
      bytes += [0, isForeign ? 1 : 2, isForeign ? 5 : 7, place == 0 ? 1 : 0]
      bytes.append(number: LocatorSet.lifetime)
      if !isForeign {
        bytes.append(number: endpoint.port)
        // A host's own address, with the priority that RFC 8445 §5.1.2.1 gives that.
        bytes += [LocatorSet.udp, 0]
        bytes.append(number: (126 as UInt32) << 24 | (65_535 - UInt32(truncatingIfNeeded: place)) << 8 | 255)
      }
      bytes.append(number: spi)
      let address = endpoint.address
      bytes.append(number: address.isV4 ? 0 : address.high)
      bytes.append(number: address.isV4 ? 0xFFFF << 32 | UInt64(truncatingIfNeeded: address.v4) : address.low)
    }
    return bytes
  }
}

extension Endpoint {
  fileprivate init?(locator: [UInt8], type: UInt8, port: UInt16) {
    var reader = ByteReader(locator[...])
    var port = port
    switch (type, locator.count) {
    case (0, 16): break
    case (1, 20): guard reader.skip(4) else { return nil }
    case (2, 28):
      guard let own = reader.number(UInt16.self), reader.byte() == 17, reader.skip(9) else { return nil }
      port = own
    default: return nil
    }
    guard let high = reader.number(UInt64.self), let low = reader.number(UInt64.self) else { return nil }
    let isV4 = high == 0 && low >> 32 == 0xFFFF
    self.init(
      address: isV4 ? IPAddress(v4: UInt32(truncatingIfNeeded: low)) : IPAddress(v6High: high, low: low), port: port)
  }

  /// Whether one host can be there, and can be reached beyond its own link: RFC 8046 §5.4 asks for unicast, and what
  /// names this machine, its links or a host identity is no place at all.
  var isLocator: Bool {
    guard port != 0 else { return false }
    if address.isV4 {
      let first = address.v4 >> 24
      return first != 0 && first != 127 && first < 224 && address.v4 >> 16 != 0xA9FE
    }
    // All of ::/64 is set aside (RFC 4291 §2.4, §2.5.5): unspecified, loopback, embedded IPv4.
    return address.high != 0 && address.high >> 56 != 0xFF && address.high >> 54 != 0xFE80 >> 6
      && address.high >> 36 != 0x2001_002
  }
}
