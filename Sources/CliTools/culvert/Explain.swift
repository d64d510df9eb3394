import ArgumentParser
import Dataplane
import Foundation
import Gateway
import Host
import PacketIO

struct Explain: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Says what would become of a packet, and why.",
    discussion: """
      Which partner, rule, translation, association, path and size apply, or for which reason it would be dropped. The \
      packet is put to the steps that packets go through, and nothing is sent, counted or remembered. Addresses are \
      those that hosts on this side see; the one that is a partner's tells the direction.

        culvert explain oslo --from 10.1.0.5 --to 10.2.0.7 --proto tcp --port 443
        culvert explain --config oslo.yaml --from 10.2.0.7 --to 10.1.0.5 --proto icmp
        culvert explain oslo --pcap inside.pcap --packet 3

      Asks a running gateway, or with --config one that does not run and has heard nothing from its partners yet.
      """)

  @OptionGroup var target: Target

  @Option(help: "The file of a gateway that need not run.", completion: .file())
  var config: String?

  @Option(help: "The sender's address.")
  var from: IPAddress?

  @Option(help: "The receiver's address.")
  var to: IPAddress?

  @Option(help: "tcp (a handshake's first packet), udp, icmp (an echo request), or a protocol number.")
  var proto = "tcp"

  @Option(help: "The receiver's port.")
  var port: UInt16?

  @Option(help: "The sender's port.")
  var sourcePort: UInt16 = 49152

  @Option(help: "Bytes of the packet.")
  var length = 0

  @Option(
    help: "Packets inside the tunnel, from a pcap or pcapng file, in place of one that is made up.", completion: .file()
  )
  var pcap: String?

  @Option(help: "Only this packet of the file, counted from 1.")
  var packet: Int?

  @Flag(help: "Print JSON: a list, one entry a packet.")
  var json = false

  func validate() throws {
    if config != nil, target.client != nil { throw ValidationError("Give a running gateway or --config, not both.") }
    if config == nil, target.client == nil {
      throw ValidationError("Name the gateway, its socket with --control, or its file with --config.")
    }
    if pcap == nil, from == nil || to == nil { throw ValidationError("Give --from and --to, or --pcap.") }
    if pcap != nil, from != nil || to != nil { throw ValidationError("Give --from and --to, or --pcap, not both.") }
    if pcap == nil, packet != nil { throw ValidationError("--packet counts the packets of a --pcap file.") }
    if !(0...65535).contains(length) { throw ValidationError("A packet has 0 to 65535 bytes.") }
    if transport == nil { throw ValidationError("--proto is tcp, udp, icmp, or a number from 0 to 255.") }
    let hasPorts = ["tcp", "udp"].contains(proto)
    if pcap == nil, hasPorts, port == nil { throw ValidationError("Give the receiver's --port.") }
    if !hasPorts, port != nil { throw ValidationError("Only tcp and udp have ports.") }
  }

  private var transport: (kind: TestPacket.Transport, number: UInt8)? {
    if let number = UInt8(proto) {
      let known: [UInt8: TestPacket.Transport] = [6: .tcp, 17: .udp]
      return (known[number] ?? .other, number)
    }
    return TestPacket.Transport(rawValue: proto).flatMap { $0 == .other ? nil : ($0, 0) }
  }

  func run() async throws {
    try await reportingErrors {
      let explain = try explainer()
      var answers: [Answer] = []
      for (number, frame) in try frames() {
        switch frame {
        case .packet(let bytes): answers.append(Answer(packet: number, explanation: try explain(bytes)))
        case .foreign: answers.append(Answer(packet: number, problem: "no IP packet"))
        case .cut: answers.append(Answer(packet: number, problem: "the file has only a part of it"))
        }
      }
      if json {
        print(try Show.encode(answers))
      } else {
        let isNumbered = pcap != nil
        print(
          answers.map { ($0.packet.map { isNumbered ? "packet \($0)\n" : "" } ?? "") + $0.text }
            .joined(separator: "\n\n"))
      }
    }
  }

  private struct Answer: Encodable {
    /// In its file, from 1.
    var packet: Int?
    var explanation: Explanation?
    var problem: String?

    var text: String { explanation?.text ?? problem ?? "" }
  }

  private func frames() throws -> [(number: Int?, PacketFile.Frame)] {
    if let pcap {
      let frames = Array(try PacketFile(contentsOf: pcap).frames.enumerated()).map { ($0.offset + 1, $0.element) }
      guard let packet else { return frames }
      guard frames.indices.contains(packet - 1) else {
        throw OperatorError("\(pcap) has \(frames.count) packets", remedy: "choose one of them with --packet")
      }
      return [frames[packet - 1]]
    }
    guard let from, let to, let transport else { return [] }
    let packet = try TestPacket(
      from: from, to: to, transport: transport.kind, sourcePort: sourcePort, destinationPort: port ?? 0,
      number: transport.number, length: length)
    return [(nil, .packet(packet.bytes))]
  }

  private func explainer() throws -> ([UInt8]) throws -> Explanation {
    if let client = target.client { return { try client.explain($0) } }
    let plan = try GatewayFile(config ?? "").plan()
    return { try plan.explain($0) }
  }
}
