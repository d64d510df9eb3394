import CLinux
import Glibc

/// Has the kernel put each packet on the TUN queue of the worker that owns its flow, with a program in its own machine
/// language (eBPF). So a flow always comes by one queue, and in order.
///
/// It knows the flows of TCP, UDP and pings; fragments, ICMP errors and IPv6 packets with extension headers go to
/// worker 0, which looks closer. Without the program (it needs CAP_BPF, or a system that lets everybody load such
/// filters) the kernel spreads flows by itself, and moves one to the queue where its answers were written: workers then
/// hand over what is not theirs, and a flow's first packets may change places when it is moved.
package enum QueueSteering {
  /// Returns a positive errno where the kernel does not take it.
  /// - Parameters:
  ///   - descriptor: a queue of the device.
  ///   - workers: as many as the device has queues; a power of two.
  package static func attach(to descriptor: Int32, workers: Int) -> Int32 {
    let program = program(mask: Int32(workers - 1))
    return DeviceCalls.steer(descriptor, program)
  }

  // MARK: The program

  private static let (sum, start, transport, value): (UInt8, UInt8, UInt8, UInt8) = (8, 9, 7, 0)

  /// `FlowOwner.owner`, in 64-bit instructions.
  static func program(mask: Int32) -> [UInt64] {
    var code = FilterCode()
    // Loads from the packet want it here, answer in register 0, and end the program with 0 beyond its end.
    code.move(6, from: 1)
    code.loadByte(0)
    code.move(start, from: value)
    code.compute(.shiftRight, value, 4)
    code.jump(.equal, value, 6, to: .version6)

    code.compute(.and, start, 15)
    code.compute(.shiftLeft, start, 2)
    code.loadHalf(6)
    code.jump(.anyBit, value, 0x3FFF, to: .worker0)
    loadEnds(transport: 9, source: 15, destination: 19, &code)
    code.jump(.notEqual, transport, Int32(IPProtocol.icmp), to: .ports)
    branchOnPing([ICMP.echoReply, ICMP.echoRequest], &code)

    code.place(.version6)
    code.set(start, 40)
    loadEnds(transport: 6, source: 23, destination: 39, &code)
    for header in [IPProtocol.hopByHop, IPProtocol.routing, IPProtocol.fragment, IPProtocol.destinationOptions] {
      code.jump(.equal, transport, Int32(header), to: .worker0)
    }
    code.jump(.notEqual, transport, Int32(IPProtocol.icmpV6), to: .ports)
    branchOnPing([ICMP.echoRequestV6, ICMP.echoReplyV6], &code)

    code.place(.ports)
    code.compute(.multiply, sum, Int32(bitPattern: FlowOwner.addressFactor))
    code.jump(.equal, transport, Int32(IPProtocol.tcp), to: .pair)
    code.jump(.equal, transport, Int32(IPProtocol.udp), to: .pair)
    code.jump(to: .mix)
    code.place(.pair)
    for offset: Int32 in [0, 2] {
      code.loadHalf(behind: start, offset)
      code.compute(.multiply, value, Int32(bitPattern: FlowOwner.portFactor))
      code.compute(.add, sum, from: value)
    }
    code.jump(to: .mix)

    code.place(.identifier)
    code.compute(.multiply, sum, Int32(bitPattern: FlowOwner.addressFactor))
    code.loadHalf(behind: start, 4)
    code.compute(.multiply, value, Int32(bitPattern: FlowOwner.portFactor))
    code.compute(.add, sum, from: value)

    code.place(.mix)
    code.compute(.multiply, transport, Int32(bitPattern: FlowOwner.protocolFactor))
    code.compute(.add, sum, from: transport)
    code.move(value, from: sum)
    code.compute(.shiftRight, value, 15)
    code.compute(.exclusiveOr, sum, from: value)
    code.compute(.multiply, sum, Int32(bitPattern: FlowOwner.mixFactor))
    code.compute(.shiftRight, sum, 16)
    code.compute(.and, sum, mask)
    code.move(value, from: sum)
    code.exit()

    code.place(.worker0)
    code.set(value, 0)
    code.exit()
    return code.instructions
  }

  /// The protocol, and the sum of both addresses' last bytes, from these offsets.
  private static func loadEnds(transport field: Int32, source: Int32, destination: Int32, _ code: inout FilterCode) {
    code.loadByte(field)
    code.move(transport, from: value)
    code.loadByte(source)
    code.move(sum, from: value)
    code.loadByte(destination)
    code.compute(.add, sum, from: value)
  }

  /// Pings are told apart by their identifier; what else ICMP brings is worker 0's.
  private static func branchOnPing(_ types: [UInt8], _ code: inout FilterCode) {
    code.loadByte(behind: start, 0)
    for type in types { code.jump(.equal, value, Int32(type), to: .identifier) }
    code.jump(to: .worker0)
  }
}

/// Writes eBPF instructions (RFC 9669) and resolves their jumps.
private struct FilterCode {
  enum Label { case version6, ports, pair, identifier, mix, worker0 }
  enum Operation: UInt8 {
    case add = 0x00
    case multiply = 0x20
    case and = 0x50
    case shiftLeft = 0x60
    case shiftRight = 0x70
    case exclusiveOr = 0xA0
  }
  enum Comparison: UInt8 {
    case equal = 0x10
    case anyBit = 0x40
    case notEqual = 0x50
  }

  private var code: [UInt64] = []
  private var labels: [Label: Int] = [:]
  private var jumps: [(at: Int, to: Label)] = []

  private mutating func add(
    _ operation: UInt8, to: UInt8 = 0, from: UInt8 = 0, _ number: Int32 = 0
  ) {
    code.append(UInt64(operation) | UInt64(from << 4 | to) << 8 | UInt64(UInt32(bitPattern: number)) << 32)
  }

  mutating func move(_ to: UInt8, from: UInt8) { add(0xBF, to: to, from: from) }
  mutating func set(_ to: UInt8, _ number: Int32) { add(0xB7, to: to, number) }
  /// 32 bits wide, with a number or a register.
  mutating func compute(_ operation: Operation, _ to: UInt8, _ number: Int32) {
    add(0x04 | operation.rawValue, to: to, number)
  }
  mutating func compute(_ operation: Operation, _ to: UInt8, from: UInt8) {
    add(0x0C | operation.rawValue, to: to, from: from)
  }
  /// From the packet, at an offset, or at one behind what a register says.
  mutating func loadByte(_ offset: Int32) { add(0x30, offset) }
  mutating func loadHalf(_ offset: Int32) { add(0x28, offset) }
  mutating func loadByte(behind register: UInt8, _ offset: Int32) { add(0x50, from: register, offset) }
  mutating func loadHalf(behind register: UInt8, _ offset: Int32) { add(0x48, from: register, offset) }

  mutating func jump(_ comparison: Comparison, _ register: UInt8, _ number: Int32, to label: Label) {
    jumps.append((code.count, label))
    add(0x05 | comparison.rawValue, to: register, number)
  }
  mutating func jump(to label: Label) {
    jumps.append((code.count, label))
    add(0x05)
  }
  mutating func place(_ label: Label) { labels[label] = code.count }
  mutating func exit() { add(0x95) }

  var instructions: [UInt64] {
    var code = code
    for jump in jumps {
      let distance = (labels[jump.to] ?? 0) - jump.at - 1
      code[jump.at] |= UInt64(UInt16(bitPattern: Int16(distance))) << 16
    }
    return code
  }
}
