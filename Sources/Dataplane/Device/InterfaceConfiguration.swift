public import PacketIO

/// The TUN device. Only `addresses`, `routes` and `mtu` may change while a dataplane runs.
public struct InterfaceConfiguration: Sendable, Equatable {
  /// Where the device comes from.
  public enum Source: Sendable, Equatable {
    /// Creates the device, or attaches to a persistent one, by name (1 to 15 characters).
    case name(String)
    /// Takes over an open TUN queue. It must have been set up with `IFF_TUN | IFF_NO_PI | IFF_VNET_HDR`.
    case descriptor(Int32)
  }

  public var source: Source
  /// This gateway's own addresses on the device, each with the length of its on-link prefix.
  public var addresses: [InterfaceAddress]
  /// Prefixes the kernel shall send into the device, beside the on-link ones.
  public var routes: [Prefix]
  /// Bytes of the largest inner packet, 1280 to 65535 (576 where no IPv6 is used).
  public var mtu: Int
  /// Offloads to ask the kernel for; those that fail their self-test at start are left out and reported.
  public var offloads: TunOffloads

  public init(
    source: Source, addresses: [InterfaceAddress] = [], routes: [Prefix] = [], mtu: Int = 1400,
    offloads: TunOffloads = .all
  ) {
    self.source = source
    self.addresses = addresses
    self.routes = routes
    self.mtu = mtu
    self.offloads = offloads
  }
}

/// An address on the device and the length of the prefix that is on-link with it, 1 to 32 or 128.
public struct InterfaceAddress: Sendable, Hashable {
  public var address: IPAddress
  public var prefixLength: Int
  public init(_ address: IPAddress, prefixLength: Int) {
    self.address = address
    self.prefixLength = prefixLength
  }
}

/// Work the kernel leaves to us or takes from us at the TUN device.
public struct TunOffloads: OptionSet, Sendable, Hashable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// Partial checksums; all others need it.
  public static let checksum = TunOffloads(rawValue: 1)
  public static let tcp4 = TunOffloads(rawValue: 2)
  public static let tcp6 = TunOffloads(rawValue: 4)
  public static let udp4 = TunOffloads(rawValue: 8)
  public static let udp6 = TunOffloads(rawValue: 16)
  public static let all: TunOffloads = [.checksum, .tcp4, .tcp6, .udp4, .udp6]
}
