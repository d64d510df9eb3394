import Testing

/// Numbers that come from outside are never converted in a way that can end the program.
///
/// `UInt64(x)` traps where `x` does not fit, and one such conversion of a figure that a ticket holder chose has ended a
/// relay with all its tenants. What fits or not is to be said: `exactly`, `clamping`, `truncatingIfNeeded`. A plain
/// conversion is right where a type only gets wider, or a number is bounded by a table's size. Whether it is cannot be
/// read off a line, so those that somebody has looked at are counted here, file by file: where a number has to grow, look
/// at the new ones.
@Suite struct ConversionTests {
  static let lookedAt: [String: Int] = [
    "Sources/CliTools/culvert-relay/Relay.swift": 1,
    "Sources/CliTools/culvert-relay/RelayFile.swift": 1,
    "Sources/CliTools/culvert-relay/RelayPolicyReader.swift": 2,
    "Sources/CliTools/culvert/Explain.swift": 1,
    "Sources/CliTools/culvert/Packets/PacketFile.swift": 5,
    "Sources/CliTools/culvert/Packets/TestPacket.swift": 2,
    "Sources/CliTools/culvert/Text/TextTable.swift": 2,
    "Sources/CliTools/culvert/TicketCommand.swift": 3,
    "Sources/CliTools/culvert/TicketPair.swift": 2,
    "Sources/Dataplane/Addressing/Prefix.swift": 2,
    "Sources/Dataplane/Addressing/PrefixMap.swift": 4,
    "Sources/Dataplane/Aggregation/OpenAggregate.swift": 2,
    "Sources/Dataplane/Capture/CaptureFile.swift": 11,
    "Sources/Dataplane/Device/Coalescing.swift": 1,
    "Sources/Dataplane/Device/DeviceCalls.swift": 4,
    "Sources/Dataplane/Device/Netlink.swift": 18,
    "Sources/Dataplane/Device/NetlinkMessage.swift": 9,
    "Sources/Dataplane/Device/OffloadSelfTest.swift": 13,
    "Sources/Dataplane/Device/Segmentation.swift": 6,
    "Sources/Dataplane/Device/TunDevice.swift": 4,
    "Sources/Dataplane/Device/TunQueue.swift": 2,
    "Sources/Dataplane/Device/TunQueues.swift": 2,
    "Sources/Dataplane/ESP/AEADMultiBuffer.swift": 7,
    "Sources/Dataplane/ESP/AEADOpenSSL.swift": 4,
    "Sources/Dataplane/ESP/KeyFingerprint.swift": 2,
    "Sources/Dataplane/ESP/ReplayWindow.swift": 9,
    "Sources/Dataplane/ESP/SecurityAssociation.swift": 1,
    "Sources/Dataplane/Firewall/FirewallFragments.swift": 1,
    "Sources/Dataplane/Firewall/FlowTable.swift": 2,
    "Sources/Dataplane/Firewall/RuleSet.swift": 8,
    "Sources/Dataplane/Firewall/TCPConnection.swift": 9,
    "Sources/Dataplane/Fit/Congestion.swift": 1,
    "Sources/Dataplane/Fit/TooBigMessage.swift": 4,
    "Sources/Dataplane/Negotiation/AddressMessage.swift": 4,
    "Sources/Dataplane/Negotiation/IntermediateSpace.swift": 1,
    "Sources/Dataplane/Node/HandOffIntake.swift": 1,
    "Sources/Dataplane/Node/PathSharing.swift": 1,
    "Sources/Dataplane/Paths/Candidate.swift": 1,
    "Sources/Dataplane/Paths/PathMeter.swift": 1,
    "Sources/Dataplane/Paths/PathSelection.swift": 1,
    "Sources/Dataplane/Paths/PathSelectionPoll.swift": 1,
    "Sources/Dataplane/Paths/ProbeInterval.swift": 1,
    "Sources/Dataplane/Pipeline/Lookahead.swift": 1,
    "Sources/Dataplane/Pipeline/PathFit.swift": 1,
    "Sources/Dataplane/Steering/FlowOwner.swift": 13,
    "Sources/Dataplane/Steering/HandOffs.swift": 1,
    "Sources/Dataplane/Steering/QueueSteering.swift": 12,
    "Sources/Dataplane/Tables/AssociationTable.swift": 1,
    "Sources/Dataplane/Tables/Peer.swift": 2,
    "Sources/Dataplane/Tables/RowSet.swift": 4,
    "Sources/Dataplane/Tables/Validation.swift": 1,
    "Sources/Dataplane/Translation/DNSMessage.swift": 1,
    "Sources/Dataplane/Translation/DNSRewriting.swift": 2,
    "Sources/Dataplane/Translation/PrefixPair.swift": 4,
    "Sources/Dataplane/Translation/ReverseName.swift": 2,
    "Sources/Dataplane/Wire/Checksum.swift": 10,
    "Sources/Dataplane/Wire/ChecksumDelta.swift": 2,
    "Sources/Dataplane/Wire/ControlMessage.swift": 1,
    "Sources/Dataplane/Wire/FlowKey.swift": 7,
    "Sources/Dataplane/Wire/FragmentHeader.swift": 1,
    "Sources/Dataplane/Wire/ProbeMessage.swift": 1,
    "Sources/Dataplane/Wire/TCPSegment.swift": 2,
    "Sources/Gateway/Agent/GatewayLoop.swift": 1,
    "Sources/Gateway/Control/ControlClient.swift": 2,
    "Sources/Gateway/Plan/File/FirewallReader.swift": 2,
    "Sources/Gateway/Plan/File/GatewayFileReader.swift": 1,
    "Sources/Gateway/Plan/File/KeyReader.swift": 2,
    "Sources/Gateway/Plan/File/PeerReader.swift": 2,
    "Sources/Gateway/Relays/RelayAgent.swift": 1,
    "Sources/Gateway/State/KeyLedger.swift": 2,
    "Sources/Gateway/State/Origin.swift": 1,
    "Sources/Gateway/State/SequenceKeeper.swift": 1,
    "Sources/Gateway/State/StateDirectory.swift": 2,
    "Sources/Host/Descriptor.swift": 2,
    "Sources/Host/Privileges.swift": 1,
    "Sources/Host/ServiceManager.swift": 2,
    "Sources/Host/UnixSocket.swift": 1,
    "Sources/Identity/HIPPacket.swift": 4,
    "Sources/Identity/HostIdentityTag.swift": 4,
    "Sources/Keying/Rekeying.swift": 2,
    "Sources/Keying/Responder.swift": 3,
    "Sources/Keying/Session.swift": 1,
    "Sources/Keying/Turn.swift": 2,
    "Sources/PacketIO/ByteReader.swift": 1,
    "Sources/PacketIO/IPAddress.swift": 1,
    "Sources/PacketIO/MonotonicTime.swift": 5,
    "Sources/PacketIO/Receiver.swift": 3,
    "Sources/PacketIO/Ring.swift": 14,
    "Sources/PacketIO/Sockets/KernelSocket.swift": 2,
    "Sources/PacketIO/Sockets/SendControl.swift": 2,
    "Sources/PacketIO/Sockets/SocketName.swift": 2,
    "Sources/PacketIO/Sockets/SourceControl.swift": 1,
    "Sources/PacketIO/Sockets/UDPSocket.swift": 4,
    "Sources/PacketIO/StateMemory.swift": 5,
    "Sources/PacketIO/Superpacket.swift": 2,
    "Sources/PacketIO/TokenBucket.swift": 1,
    "Sources/Relay/Admission/Admission.swift": 2,
    "Sources/Relay/Admission/HairpinLife.swift": 2,
    "Sources/Relay/Admission/TicketJudge.swift": 1,
    "Sources/Relay/Engine/Engine.swift": 4,
    "Sources/Relay/Engine/EngineState.swift": 1,
    "Sources/Relay/Identities/RelayLoad.swift": 1,
    "Sources/Relay/Proxy/DatagramForwarding.swift": 1,
    "Sources/Relay/Proxy/HairpinProxy.swift": 1,
    "Sources/Relay/Ring/ForwardBatch.swift": 4,
    "Sources/Relay/Ring/Schedule.swift": 7,
    "Sources/Relay/Settings/IdentityTicket.swift": 1,
    "Sources/Relay/Streams/StreamForwarding.swift": 2,
    "Sources/Settings/HostName.swift": 1,
    "Sources/Settings/PlainYAML.swift": 1,
    "Sources/Transports/Hairpin/AskingTimer.swift": 1,
    "Sources/Transports/Hairpin/Base64.swift": 6,
    "Sources/Transports/Hairpin/HairpinFigures.swift": 2,
    "Sources/Transports/Hairpin/HairpinLink.swift": 3,
    "Sources/Transports/Hairpin/HairpinMessage.swift": 2,
    "Sources/Transports/Hairpin/HairpinNumber.swift": 2,
    "Sources/Transports/Hairpin/HairpinTicket.swift": 5,
    "Sources/Transports/Streams/Destinations.swift": 1,
    "Sources/Transports/Streams/Redial.swift": 1,
    "Sources/Transports/Streams/StreamBytes.swift": 1,
    "Sources/Transports/Streams/StreamReads.swift": 2,
    "Sources/Transports/TCP/SendQueues.swift": 1,
    "Sources/Transports/TCP/StreamSends.swift": 2,
    "Sources/Transports/TCP/TCPFigures.swift": 3,
    "Sources/Transports/TCP/TCPLink+Receive.swift": 1,
    "Sources/Transports/TCP/TCPLink.swift": 2,
    "Sources/Transports/UDP/MessageTable.swift": 2,
    "Sources/Transports/UDP/UDPFigures.swift": 3,
    "Sources/Transports/UDP/UDPLink.swift": 7,
  ]

  /// Where packets, messages, tickets, files and a kernel's answers are read and handled.
  static let rooms = [
    "Sources/Dataplane",
    "Sources/Identity",
    "Sources/KeyDerivation",
    "Sources/Keying",
    "Sources/KeyAgreement",
    "Sources/Transports",
    "Sources/Relay",
    "Sources/PacketIO",
    "Sources/Host",
    "Sources/Settings",
    "Sources/Gateway",
    "Sources/CliTools/culvert",
    "Sources/CliTools/culvert-relay",
  ]

  /// Plain conversions, but of constants of C.
  static func conversions(_ text: String) -> Int {
    let plain =
      /(?:U?Int(?:8|16|32|64)|UInt)\((?!truncatingIfNeeded|clamping|exactly|bitPattern|digits|ascii|littleEndian|bigEndian|\)|[A-Z]\w*[A-Z_]\b|[A-Z][A-Z0-9_]+\.rawValue|[\w.]+\.rawValue\)|"|repeating)/
      .wordBoundaryKind(.simple).asciiOnlyCharacterClasses()
    return text.split(separator: "\n").filter { !$0.drop { $0 == " " }.hasPrefix("//") }
      .reduce(0) { count, line in
        count
          + line.matches(of: plain).filter { match in
            guard match.range.lowerBound > line.startIndex else { return true }
            let before = line[line.index(before: match.range.lowerBound)]
            return !before.isLetter && !before.isNumber && before != "_" && before != "."
          }.count
      }
  }

  @Test(arguments: rooms) func plainConversionsWereLookedAt(room: String) throws {
    let files = try Checkout.swiftFiles(room)
    #expect(!files.isEmpty)
    for file in files {
      let count = Self.conversions(file.lines.joined(separator: "\n"))
      let known = Self.lookedAt[file.path] ?? 0
      #expect(
        count == known,
        """
        \(file.path) has \(count) plain conversions, \(known) were looked at: say 'exactly', 'clamping' or \
        'truncatingIfNeeded', or look at them all and correct the number
        """)
    }
  }

  @Test func filesThatAreGoneAreNotCounted() throws {
    let files = Set(try Self.rooms.flatMap { try Checkout.swiftFiles($0).map(\.path) })
    #expect(Set(Self.lookedAt.keys).subtracting(files).sorted() == [])
  }

  @Test func conversionsAreSeen() {
    #expect(Self.conversions("let a = UInt64(octets)") == 1)
    #expect(Self.conversions("UInt16(a) + x.UInt16(b) + Int32(IPPROTO_IP) + UInt8(ascii: \"a\")") == 1)
    #expect(Self.conversions("  // UInt64(octets)\nUInt32(clamping: a)\nUInt8(truncatingIfNeeded: b)") == 0)
    #expect(Self.conversions("f(Int64(a), UInt(b))") == 2)
  }
}
