import PacketIO

@testable import Transports

/// What a relay must do with what comes, by what it has said itself: whoever was welcomed at a port has it, from where he
/// was welcomed, and what he sends is his partner's.
struct HairpinModel {
  private struct Side: Hashable {
    var ticket: HairpinNumber
    var end: HairpinEnd
    var partner: Side { Side(ticket: ticket, end: end.other) }
  }

  /// By number of what a ticket was presented with.
  private var asked: [HairpinNumber: Side] = [:]
  private var ports: [UInt16: Side] = [:]
  private var holders: [Side: (port: UInt16, endpoint: Endpoint)] = [:]

  mutating func arrive(_ flight: Flight) {
    guard case .present(let present) = HairpinMessage(flight.datagram),
      let ticket = SignedHairpinTicket(present.ticket)?.ticket
    else { return }
    asked[present.nonce] = Side(ticket: ticket.number, end: present.end)
  }

  mutating func depart(_ departure: HairpinRelay.Departure) {
    switch HairpinMessage(departure.bytes) {
    case .accepted(let nonce, _, let port, _, _):
      guard let side = asked[nonce], ports[port] != side else { return }
      ports = ports.filter { $0.value != side }
      ports[port] = side
      holders[side] = nil
    case .welcome:
      if let side = ports[departure.port] { holders[side] = (departure.port, departure.to) }
    case .end:
      if let side = ports.removeValue(forKey: departure.port) { holders[side] = nil }
    default: break
    }
  }

  /// Where what comes has to go to; nil: nowhere.
  func destination(of flight: Flight) -> Endpoint? {
    let port = flight.destination.port
    guard HairpinModel.isSealed(flight.datagram), let side = ports[port], let holder = holders[side],
      holder.port == port, holder.endpoint == flight.source
    else { return nil }
    return holders[side.partner]?.endpoint
  }

  /// Whether it is no word of gateways and relays, by docs/HAIRPIN.md.
  static func isSealed(_ datagram: [UInt8]) -> Bool {
    datagram.count >= 4 && !datagram.starts(with: [0, 0, 0, 0, 0x43, 0x48, 0x50])
  }
}
