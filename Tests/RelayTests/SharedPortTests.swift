import Glibc
import Identity
import Lab
import PacketIO
import TestSupport
import Testing
import TransportSupport

@testable import Relay
@testable import Transports

extension IdentityRelay {
  /// A gateway is enrolled, a pair met, an SPI bound: as if they had said so.
  fileprivate mutating func enrol(_ identity: PublicHostIdentity, _ address: RelayAddress, _ number: Int) {
    _ = places.enrol(
      identity, address, seen: address.name.endpoint, token: HairpinNumber(high: 1, low: UInt64(number)), sequence: 1)
  }

  fileprivate mutating func open(
    _ pair: RelayPolicy.Pair, _ smaller: HostIdentityTag, _ greater: HostIdentityTag, now: MonotonicTime
  ) -> Int? {
    guard let first = places.place(of: smaller), let second = places.place(of: greater) else { return nil }
    return try? pairs.open(pair, RelayPolicy.Terms(), places: (first, second), now: now)
  }

  fileprivate mutating func bind(_ spi: UInt32, _ side: Int, now: MonotonicTime) {
    _ = pairs.bind(spi >> 4, side, now: now, replaced: &statistics.unbound)
  }
}

extension HairpinNetworks {
  /// The port that all enrolled gateways share, over real sockets.
  @Suite struct SharedPortTests {
    /// Gateways at sockets of the loopback interface, each enrolled and bound without a word.
    private final class Gateways {
      var server: HairpinServer
      var sockets: [Int32] = []
      private static let relay = Endpoint(address: IPAddress(v4: 0x7F00_0001), port: 4500)

      /// - Parameter pairs: by gateway, with what each takes from the other: the first's SPI, and the second's.
      init(_ count: Int, _ pairs: [(Int, Int, UInt32, UInt32)]) throws {
        let identities = (0..<count).map { _ in HostIdentity.generate(.ed25519) }
        var relay = RelayOptions(identity: .generate(.ed25519))
        (relay.gateways, relay.pairs) = (16, 16)
        for (a, b, _, _) in pairs { relay.policy.allow(identities[a].tag, identities[b].tag) }
        var options = HairpinProxyOptions(listen: [Gateways.relay], publicKeys: [])
        options.relay = relay
        server = try HairpinServer(options, clock: .current())
        let now = MonotonicTime.current()
        for number in 0..<count {
          let endpoint = Endpoint(address: Gateways.relay.address, port: UInt16(truncatingIfNeeded: 5000 + number))
          let socket = UDPSocket.open(endpoint, waits: false, bufferSize: 4 << 20)
          if socket < 0 { throw SystemError("bind", errno: -socket, remedy: "-") }
          sockets.append(socket)
          let address = RelayAddress(name: SocketName(endpoint), port: 0, now: now)
          server.identities?.enrol(identities[number].publicIdentity, address, number)
        }
        for (a, b, first, second) in pairs {
          let pair = RelayPolicy.Pair(identities[a].tag, identities[b].tag)
          let isInOrder = identities[a].tag == pair.smaller
          let numbers = isInOrder ? (a, b) : (b, a)
          guard
            let number = server.identities?.open(
              pair, identities[numbers.0].tag, identities[numbers.1].tag, now: now)
          else { continue }
          for (gateway, spi) in [(a, first), (b, second)] {
            server.identities?.bind(spi, RelayPairs.side(number, pair, of: identities[gateway].tag), now: now)
          }
        }
      }

      func turn() { _ = server.turn(waiting: 0) { .current() } }

      /// Sends one train: packets of that many bytes under these SPIs.
      func send(_ spis: [UInt32], bytes: Int, from gateway: Int) -> Bool {
        var train: [UInt8] = []
        for spi in spis {
          train.append(number: spi)
          train += [UInt8](repeating: 1, count: bytes - 4)
        }
        var size = Int32(truncatingIfNeeded: bytes)
        setsockopt(sockets[gateway], 17, 103, &size, 4)  // UDP_SEGMENT
        return UDPSocket.send(sockets[gateway], train, to: SocketName(Gateways.relay)) == 0
      }

      /// Packets that have come to a gateway, as many as they are when trains are cut.
      func received(_ gateway: Int, bytes: Int) -> Int {
        var (count, room) = (0, [UInt8](repeating: 0, count: 65_536))
        while true {
          let length = recv(sockets[gateway], &room, room.count, Int32(MSG_DONTWAIT))
          guard length > 0 else { return count }
          count += length / bytes
        }
      }

      deinit {
        server.close()
        for socket in sockets { close(socket) }
      }
    }

    /// One gateway has each of many small packets go elsewhere than the one before, and fills what can be staged in a turn
    /// many times over: another pair loses nothing by it, and neither does it itself.
    @Test func whoAlternatesTakesNothingFromOthers() async throws {
      let (alternating, others, forwarded, dropped) = try await HairpinLab.run { () -> ([Int], Int, UInt64, UInt64) in
        let lab = try Gateways(5, [(0, 1, 0x1000, 0x2000), (0, 2, 0x3000, 0x4000), (3, 4, 0x5000, 0x6000)])
        lab.turn()
        for _ in 0..<60 {
          let spis = (0..<60).map { $0 % 2 == 0 ? 0x2000 as UInt32 : 0x4000 }
          guard lab.send(spis, bytes: 40, from: 0) else { return ([], -1, 0, 0) }
        }
        for _ in 0..<20 { _ = lab.send([0x6000, 0x6000], bytes: 40, from: 3) }
        for _ in 0..<20 { lab.turn() }
        let statistics = lab.server.identities?.statistics
        return (
          [lab.received(1, bytes: 40), lab.received(2, bytes: 40)], lab.received(4, bytes: 40),
          statistics?.forwardedPackets ?? 0, statistics?[.notTaken] ?? 0
        )
      }
      #expect(others == 40)
      #expect(alternating == [1800, 1800])
      #expect(forwarded == 3640 && dropped == 0)
    }
  }
}
