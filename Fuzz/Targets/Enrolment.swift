import Identity
import PacketIO

@testable import Relay
@testable import Transports

/// Messages by which gateways enrol, from anybody: what is read has one spelling, and is no other message.
let enrolmentMessage = FuzzTarget(name: "EnrolmentMessage") { input in
  guard let message = EnrolmentMessage(input) else { return }
  require(message.encoded == input, "two spellings of \(message)")
  require(HairpinMessage(input) == nil, "two messages")
}

/// Everything that may come to an identity relay from somebody who has not enrolled: nothing passes, nothing is kept, and
/// no answer is longer than what it answers.
let identityRelay = FuzzTarget(name: "IdentityRelay") { input in
  let identity = HostIdentity(ed25519Seed: [UInt8](repeating: 9, count: 32))
  var options = RelayOptions(identity: identity)
  (options.gateways, options.pairs) = (4, 4)
  options.policy.add(group: "all", [identity.tag])
  options.policy.allow(groups: "all", "all")
  let clock = HairpinClock(monotonic: MonotonicTime(nanoseconds: 1 << 40), wall: 0)
  let cookies = HairpinCookies(secret: [UInt8](repeating: 7, count: 32))
  var relay = IdentityRelay(options, cookies: cookies, now: clock.monotonic)
  let sender = Endpoint(address: IPAddress(v4: 0x0A00_0001), port: 4500)
  var name = [UInt8](repeating: 0, count: 16)
  (name[0], name[2], name[3], name[4], name[7]) = (2, 0x11, 0x94, 10, 1)
  if case .enrol(let enrol) = EnrolmentMessage(input) {
    let answer = relay.answer(enrol, input, from: sender, port: (0, 4500), clock)
    require(answer?.count ?? 0 <= input.count, "a longer answer")
  }
  withPacketBytes(input) { packet in
    withPacketBytes(name) { source in
      guard packet.count > 4 else { return }
      if case .forward = relay.observe(packet.dropFirst(4), from: .datagram(source), clock) {
        require(false, "a handshake passes")
      }
      if case .forward = relay.route(packet.load32(0), from: .datagram(source)) { require(false, "a packet passes") }
    }
  }
  require(relay.places.enrolled == 0 && relay.pairs.count == 0 && relay.pairs.table.count == 0, "something is kept")
}
