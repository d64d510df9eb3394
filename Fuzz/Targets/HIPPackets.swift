import Identity
import PacketIO

/// Packets of a handshake, from anybody: what is read has its parameters within its bytes, put together again it is the
/// same packet, and nobody's signature or code is on it.
let hipPackets = FuzzTarget(name: "HIPPackets") { input in
  var header: HIPHeader?
  withPacketBytes(input) { header = HIPHeader.peek($0) }
  guard let packet = HIPPacket(input) else { return }
  require(header == packet.header, "a worker reads another header")
  require(HIPPacket.problem(input) == nil, "a packet with a problem")
  guard !packet.types.isEmpty else { return }
  var known = HIPBuilder(packet.kind, from: packet.sender, to: packet.receiver)
  for type in Set(packet.types).sorted() {
    guard let type = HIPParameter(rawValue: type) else { continue }
    let contents = packet.contents(type)
    require(contents.first == packet.content(type) && !contents.isEmpty, "\(type) is there and is not")
    for content in contents { known.append(type, Array(content)) }
  }
  guard let again = HIPPacket(known.finish()) else { return require(false, "what was put together does not read back") }
  for type in HIPParameter.allCases {
    require(again.contents(type).elementsEqual(packet.contents(type), by: { $0.elementsEqual($1) }), "\(type) changed")
  }
  if let identity = packet.content(.hostID).flatMap({ PublicHostIdentity(hostID: $0) }) {
    require(PublicHostIdentity(hostID: identity.hostID) == identity, "a key reads back otherwise")
    // Valid only in what the corpus holds; what counts is that they return.
    _ = packet.hasValidSignature(by: identity)
    _ = packet.hasValidSignature2(by: identity)
  }
  let key = KeyMaterial([UInt8](repeating: 7, count: 48))
  for suite in HostIdentitySuite.allCases {
    require(!packet.hasValidMAC(key: key, suite: suite), "a code that nobody made")
    require(!packet.hasValidMAC2(key: key, suite: suite, hostID: [1, 2]), "a code that nobody made")
  }
}
