@testable import Dataplane

/// AGGFRAG payloads as RFC 9347 draws them, made and taken apart byte by byte; shares no code with what is tested.
enum SlowAggregate {
  /// One payload to be sent, and which of the packets have a part in it.
  struct Payload: Equatable {
    var bytes: [UInt8]
    var parts: Set<Int> = []
  }

  static func header(_ offset: Int, subType: UInt8 = 0) -> [UInt8] {
    [subType, 0] + be16(UInt16(offset)) + (subType == 1 ? [UInt8](repeating: 0xCC, count: 20) : [])
  }

  /// Packets laid end to end and cut at any place, now and then with padding in a payload or payloads of padding only
  /// in between.
  static func split(_ packets: [[UInt8]], into sizes: ClosedRange<Int>, _ numbers: inout SeededNumbers) -> [Payload] {
    var payloads: [Payload] = []
    var packet = 0
    var place = 0
    while packet < packets.count {
      // Between two fragments of one packet, or anywhere else.
      if Int.random(in: 0..<10, using: &numbers) == 0 {
        let padding = [UInt8](repeating: 0, count: Int.random(in: 0...5, using: &numbers))
        payloads.append(Payload(bytes: header(0) + (place > 0 ? [0] : []) + padding))
      }
      var room = Int.random(in: sizes, using: &numbers)
      let subType: UInt8 = Int.random(in: 0..<5, using: &numbers) == 0 ? 1 : 0
      var payload = Payload(bytes: header(place > 0 ? packets[packet].count - place : 0, subType: subType))
      while room > 0, packet < packets.count {
        let taken = min(room, packets[packet].count - place)
        payload.bytes += packets[packet][place..<place + taken]
        payload.parts.insert(packet)
        place += taken
        room -= taken
        guard place == packets[packet].count else { break }
        place = 0
        packet += 1
        // Padding goes to the end.
        if room > 0, Int.random(in: 0..<8, using: &numbers) == 0 {
          payload.bytes += [UInt8](repeating: 0, count: room)
          break
        }
      }
      payloads.append(payload)
    }
    return payloads
  }

  /// The packets of a payload that has whole ones only; nil where it is not as the RFC says.
  static func packets(_ payload: [UInt8]) -> [[UInt8]]? {
    guard payload.count >= 4, payload[0..<4] == [0, 0, 0, 0] else { return nil }
    var rest = payload.dropFirst(4)
    var packets: [[UInt8]] = []
    while let first = rest.first {
      let bytes = Array(rest)
      let length: Int
      switch first / 16 {
      case 4 where bytes.count >= 20: length = Int(bytes[2]) * 256 + Int(bytes[3])
      case 6 where bytes.count >= 40: length = Int(bytes[4]) * 256 + Int(bytes[5]) + 40
      default: return nil
      }
      guard length <= bytes.count else { return nil }
      packets.append(Array(bytes[..<length]))
      rest = rest.dropFirst(length)
    }
    return packets
  }
}
