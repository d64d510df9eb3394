import Foundation
import PacketIO
import Testing

@testable import Identity
@testable import KeyDerivation

/// One of the two exchanges of vectors.txt, put together anew from the seeds that its head tells of.
///
/// The file is from an independent program that was written from the text of the RFCs, and whose suite 2 has shaken
/// hands with a HIPv2 program by others. Suite 5 is not fully defined by RFCs, and twice the file has another reading
/// of it than is ours; both are named below.
struct Exchange: Sendable, CustomTestStringConvertible {
  let name: String
  let suite: HostIdentitySuite
  let group: DiffieHellmanGroup
  let initiator: HostIdentity
  let responder: HostIdentity
  let dhI: DiffieHellmanKey
  let dhR: DiffieHellmanKey
  /// Of the rekey.
  let dhI2: DiffieHellmanKey
  let i: [UInt8]
  let j: [UInt8]
  let keymat: KeyMaterial

  static let difficulty: UInt8 = 10
  static let opaque: UInt16 = 0x1234
  static let all = [Exchange(p256: true), Exchange(p256: false)]

  var testDescription: String { name }

  private init(p256: Bool) {
    /// Modulo 2^255, where it is a scalar.
    func seed(_ text: String) -> [UInt8] {
      var bytes = sha256(text)
      if p256 { bytes[0] &= 0x7F }
      return bytes
    }
    func identity(_ text: String) -> HostIdentity {
      p256 ? HostIdentity(p256Scalar: seed(text), deterministic: true) : HostIdentity(ed25519Seed: seed(text))
    }
    name = p256 ? "p256" : "ed"
    suite = p256 ? .ecdsa : .edDSA
    let group: DiffieHellmanGroup = p256 ? .p256 : .x25519
    self.group = group
    initiator = identity("initiator")
    responder = identity("responder")
    func key(_ text: String) -> DiffieHellmanKey { DiffieHellmanKey(group: group, scalar: KeyMaterial(seed(text)))! }
    dhI = key("dh-i")
    dhR = key("dh-r")
    dhI2 = key("dh-i2")
    i = KeyedHash.cSHAKE128(Array("puzzle".utf8), count: suite.hashLength)
    let find = p256 ? Exchange.solution : Exchange.paddedSolution
    j = find(i, initiator.tag, responder.tag)
    // A handshake draws 2048 bytes. The file's author drew 1024, and with KMAC128 the count changes all of them.
    let tags = [initiator.tag, responder.tag].sorted()
    keymat = suite.derive(
      secret: dhR.agree(with: dhI.publicValue)!, salt: i + j, info: tags[0].bytes + tags[1].bytes,
      count: p256 ? 2048 : 1024)
  }

  private static func solution(_ i: [UInt8], _ initiator: HostIdentityTag, _ responder: HostIdentityTag) -> [UInt8] {
    Puzzle.solve(
      difficulty: difficulty, i: i, initiator: initiator, responder: responder, suite: .ecdsa, from: 0, tries: 1 << 16)!
  }

  /// The file's #J of suite 5. Its author took RHASH for cSHAKE128 with two empty names in front, padded to a block.
  /// But without names cSHAKE128 is SHAKE128 (SP 800-185 §3.3), and that is RHASH here. The file's tags agree with
  /// that.
  private static func paddedSolution(
    _ i: [UInt8], _ initiator: HostIdentityTag, _ responder: HostIdentityTag
  ) -> [UInt8] {
    let names: [UInt8] = [1, 168, 1, 0, 1, 0] + [UInt8](repeating: 0, count: 162)
    let known = names + i + initiator.bytes + responder.bytes
    for number: UInt16 in 0 ... .max {
      let j = [UInt8](repeating: 0, count: 30) + IdentityTests.number(number)
      let hash = OpenSSLHash.cSHAKE128(padded: known + j, count: 32)
      if hash[31] == 0, hash[30] & 3 == 0 { return j }
    }
    return []
  }

  /// Of HIP_MAC, of what that side sends.
  func macKey(of side: HostIdentity) -> KeyMaterial {
    let isGreater = side.tag == max(initiator.tag, responder.tag)
    let one = 32 + suite.macLength
    return keymat.slice((isGreater ? 0 : one) + 32, suite.macLength)
  }

  // MARK: Parameters

  var keymatIndex: UInt16 { suite == .ecdsa ? 160 : 128 }
  func espInfo(_ index: UInt16, _ old: UInt32, _ new: UInt32) -> [UInt8] {
    number(UInt16(0)) + number(index) + number(old) + number(new)
  }
  func diffieHellman(_ key: DiffieHellmanKey) -> [UInt8] {
    [group.rawValue] + number(UInt16(key.publicValue.count)) + key.publicValue
  }
  var groups: [UInt8] { suite == .ecdsa ? [7, 8] : [253, 7] }
  static let r1Counter: [UInt8] = [0, 0, 0, 0] + number(UInt64(7))

  // MARK: Packets

  func packet(
    _ kind: HIPPacketKind, from side: HostIdentity, mac: Bool = true, _ parameters: [(HIPParameter, [UInt8])]
  ) -> [UInt8] {
    var builder = HIPBuilder(kind, from: side.tag, to: side.tag == initiator.tag ? responder.tag : initiator.tag)
    for (type, content) in parameters { builder.append(type, content) }
    if mac { builder.appendMAC(key: macKey(of: side), suite: suite) }
    builder.appendSignature(by: side)
    return builder.finish()
  }

  var i1: [UInt8] {
    var builder = HIPBuilder(.i1, from: initiator.tag, to: responder.tag)
    builder.append(.dhGroupList, groups)
    return builder.finish()
  }

  var r1: [UInt8] {
    var builder = HIPBuilder(r1From: responder.tag)
    builder.append(.r1Counter, Exchange.r1Counter)
    builder.append(.puzzle, [Exchange.difficulty, 38, 0, 0] + [UInt8](repeating: 0, count: i.count))
    builder.append(.dhGroupList, groups)
    builder.append(.diffieHellman, diffieHellman(dhR))
    builder.append(.hipCipher, [0, 4, 0, 2])
    builder.append(.hostID, responder.publicIdentity.hostID)
    builder.append(.hitSuiteList, [0x20, 0x50, 0x10])
    builder.append(.transportFormatList, number(UInt16(4095)))
    builder.append(.espTransform, [0, 0, 0, 13, 0, 8])
    builder.appendSignature2(by: responder)
    return R1Template(builder).filled(receiver: initiator.tag, i: i, opaque: Exchange.opaque)
  }

  var i2: [UInt8] {
    packet(
      .i2, from: initiator,
      [
        (.espInfo, espInfo(keymatIndex, 0, 0x0A0B_0C00)), (.r1Counter, Exchange.r1Counter),
        (.solution, [Exchange.difficulty, 0] + number(Exchange.opaque) + i + j),
        (.diffieHellman, diffieHellman(dhI)), (.hipCipher, [0, 4]), (.hostID, initiator.publicIdentity.hostID),
        (.transportFormatList, number(UInt16(4095))), (.espTransform, [0, 0, 0, 13]),
      ])
  }

  var r2: [UInt8] {
    var builder = HIPBuilder(.r2, from: responder.tag, to: initiator.tag)
    builder.append(.espInfo, espInfo(keymatIndex, 0, 0x1A1B_1C00))
    builder.appendMAC2(key: macKey(of: responder), suite: suite, hostID: responder.publicIdentity.hostID)
    builder.appendSignature(by: responder)
    return builder.finish()
  }

  func rekey(halfKEM: Bool) -> [UInt8] {
    let part: [(HIPParameter, [UInt8])] =
      halfKEM ? [(.kemPart, [0, 1, 1, 2] + [UInt8](repeating: 0, count: 592))] : []
    return packet(
      .update, from: initiator,
      [
        (.espInfo, espInfo(0, 0x0A0B_0C00, 0x0A0B_0C10)), (.seq, number(UInt32(halfKEM ? 2 : 1))),
        (.diffieHellman, diffieHellman(dhI2)),
      ] + part)
  }

  var locator: [UInt8] {
    let address = [UInt8](repeating: 0, count: 10) + [255, 255, 10, 77, 0, 1]
    return packet(
      .update, from: initiator,
      [
        (.espInfo, espInfo(keymatIndex, 0x0A0B_0C00, 0x0A0B_0C00)),
        (.locatorSet, [0, 1, 5, 1] + number(UInt32(3600)) + number(UInt32(0x0A0B_0C00)) + address),
        (.seq, number(UInt32(3))),
      ])
  }

  var ackAndEcho: [UInt8] {
    packet(
      .update, from: responder,
      [
        (.espInfo, espInfo(keymatIndex, 0x1A1B_1C00, 0x1A1B_1C00)), (.seq, number(UInt32(9))),
        (.ack, number(UInt32(3))), (.echoRequestSigned, Array("12345678".utf8)),
      ])
  }

  /// What the file has not: locators with ports (RFC 9028 §5.7), of which `KeyingTests` has the bytes too, and the answer
  /// to an echo.
  var furtherPackets: [[UInt8]] {
    let address = [0x20, 1, 0x0D, 0xB8] + [UInt8](repeating: 0, count: 11) + [7]
    let locator =
      [0, 2, 7, 1] + number(UInt32(3600)) + [0x11, 0x95, 17, 0, 126, 255, 255, 255] + number(UInt32(0x0A0B_0C00))
    return [
      packet(
        .update, from: initiator,
        [
          (.espInfo, espInfo(keymatIndex, 0x0A0B_0C00, 0x0A0B_0C00)), (.locatorSet, locator + address),
          (.seq, number(UInt32(3))),
        ]),
      packet(.update, from: initiator, [(.ack, number(UInt32(9))), (.echoResponseSigned, Array("12345678".utf8))]),
    ]
  }

  /// All of the exchange, under the names of the file.
  var packets: [(name: String, bytes: [UInt8])] {
    [
      ("I1", i1), ("R1", r1), ("I2", i2), ("R2", r2), ("UPDATE rekey", rekey(halfKEM: false)),
      ("UPDATE rekey+half KEM", rekey(halfKEM: true)), ("UPDATE locator", locator), ("UPDATE ack+echo", ackAndEcho),
      (
        "NOTIFY",
        packet(
          .notify, from: responder, mac: false,
          [
            (.hostID, responder.publicIdentity.hostID),
            (.notification, [0, 0] + number(UInt16(11303)) + number(UInt32(0x0A0B_0C00))),
          ])
      ),
      ("NOTIFY keepalive", packet(.notify, from: responder, mac: false, [(.notification, [0, 0, 0x40, 1])])),
      ("CLOSE", packet(.close, from: initiator, [(.echoRequestSigned, Array("bye-nonce-123456".utf8))])),
      ("CLOSE_ACK", packet(.closeAck, from: responder, [(.echoResponseSigned, Array("bye-nonce-123456".utf8))])),
    ]
  }

  /// Whether a packet is one that its sender made: all proofs that its kind has.
  func isProven(_ packet: HIPPacket) -> Bool {
    guard packet.unknownCritical == nil else { return false }
    let sides = [initiator, responder]
    guard let side = sides.first(where: { $0.tag == packet.sender }),
      sides.contains(where: { $0.tag == packet.receiver })
    else { return false }
    let key = macKey(of: side)
    switch packet.kind {
    case .i1: return false
    case .r1: return packet.hasValidSignature2(by: side.publicIdentity)
    case .r2:
      return packet.hasValidSignature(by: side.publicIdentity)
        && packet.hasValidMAC2(key: key, suite: suite, hostID: responder.publicIdentity.hostID)
    case .notify: return packet.hasValidSignature(by: side.publicIdentity)
    default: return packet.hasValidSignature(by: side.publicIdentity) && packet.hasValidMAC(key: key, suite: suite)
    }
  }

  // MARK: The file

  /// What the file holds, by "EXCHANGE PACKET".
  static let published: [String: [UInt8]] = {
    let file = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "vectors.txt")
    let lines = try! String(contentsOf: file, encoding: .utf8).split(separator: "\n").filter { !$0.hasPrefix("#") }
    return Dictionary(
      uniqueKeysWithValues: stride(from: 0, to: lines.count - 1, by: 2).map {
        (String(lines[$0]), hex(String(lines[$0 + 1])))
      })
  }()
}
