import PacketIO
import Transports

/// UDP, but said to take packets of any size: so gateways send no probes of their own, and a test can count datagrams.
///
/// It is a transport that somebody else has brought, and no gateway can tell.
final class UnmeasuredTransport: Transport {
  private let udp = UDPTransport()

  func open(worker: Int, index: UInt8, io: inout WorkerIO) throws -> any TransportLink {
    Link(try udp.open(worker: worker, index: index, io: &io))
  }

  private final class Link: TransportLink {
    private let udp: any TransportLink
    init(_ udp: any TransportLink) { self.udp = udp }

    func overhead(_ path: Path) -> Int? { nil }

    func send(_ batch: inout PacketBatch, io: inout WorkerIO) { udp.send(&batch, io: &io) }
    func complete(
      _ completion: Completion, io: inout WorkerIO, received: inout PacketBatch, messages: inout PacketBatch
    ) {
      udp.complete(completion, io: &io, received: &received, messages: &messages)
    }
    func endTurn(io: inout WorkerIO) { udp.endTurn(io: &io) }
    func keepAlive(_ path: Path, io: inout WorkerIO) { udp.keepAlive(path, io: &io) }
    func counters() -> [TransportCounter] { udp.counters() }
    func close(io: inout WorkerIO) { udp.close(io: &io) }
  }
}
