import Foundation
import Testing

/// House rules that hold for every file under Sources.
@Suite struct SourceTests {
  /// The files that may use `unsafe`: those that own memory by hand, and those that call the kernel or a C library.
  static let unsafeFiles: Set<String> = [
    // Memory
    "Sources/Dataplane/Wire/Checksum.swift",
    "Sources/PacketIO/BufferPool.swift",
    "Sources/PacketIO/ByteAccess.swift",
    "Sources/PacketIO/FixedArray.swift",
    "Sources/PacketIO/KeyMaterial.swift",
    "Sources/PacketIO/SharedWords.swift",
    "Sources/PacketIO/StateCell.swift",
    "Sources/PacketIO/StateMemory.swift",
    // C libraries
    "Sources/Dataplane/ESP/AEADMultiBuffer.swift",
    "Sources/Dataplane/ESP/AEADOpenSSL.swift",
    "Sources/Dataplane/ESP/KeyFingerprint.swift",
    "Sources/Dataplane/ESP/OpenSSLMemory.swift",
    "Sources/Identity/OpenSSLHash.swift",
    "Sources/KeyDerivation/OpenSSLDerivation.swift",
    "Sources/Identity/OpenSSLKey.swift",
    "Sources/PacketIO/IPAddress.swift",
    "Sources/PacketIO/SystemError.swift",
    // System calls
    "Sources/Dataplane/Device/DeviceCalls.swift",
    "Sources/Dataplane/Steering/HandOffQueue.swift",
    "Sources/Dataplane/Device/TunQueue.swift",
    "Sources/PacketIO/MonotonicTime.swift",
    "Sources/PacketIO/OpenFiles.swift",
    "Sources/PacketIO/Receiver.swift",
    "Sources/PacketIO/Ring.swift",
    "Sources/PacketIO/Sockets/KernelSocket.swift",
    "Sources/PacketIO/Sockets/SendControl.swift",
    "Sources/PacketIO/Sockets/SocketName.swift",
    "Sources/PacketIO/Sockets/TCPSocket.swift",
    "Sources/PacketIO/Sockets/UDPSocket.swift",
    "Sources/PacketIO/Waker.swift",
    "Sources/Relay/Ring/ForwardBatch.swift",
    "Sources/Relay/Ring/PipePool.swift",
    "Sources/Relay/Ring/RelayIO.swift",
    "Sources/Transports/Encryption/TLSContext.swift",
    "Sources/Transports/Encryption/TLSSessions.swift",
    "Sources/Transports/Hairpin/HairpinKey.swift",
    "Sources/Transports/Hairpin/HairpinTimer.swift",
    "Sources/Transports/Streams/StreamBytes.swift",
    "Sources/Transports/TCP/RecordGather.swift",
    "Sources/Transports/UDP/MessageTable.swift",
    "Sources/Transports/Web/UnixStream.swift",
    // A thread of its own, and what waits for it
    "Sources/KeyAgreement/KeyThread.swift",
    // The programs' files, keys and sockets
    "Sources/CliTools/culvert/MLKEM768Mechanism.swift",
    "Sources/Host/AddressWatch.swift",
    "Sources/Host/Descriptor.swift",
    "Sources/Host/FileMark.swift",
    "Sources/Host/PosixFile.swift",
    "Sources/Host/UnixSocket.swift",
    // vpnbench's forwarders
    "Sources/CliTools/vpnbench/Subjects/PlainForwarder.swift",
    // The lab's processes, sockets and namespaces
    "Sources/Lab/Cleanup.swift",
    "Sources/Lab/DatagramBatch.swift",
    "Sources/Lab/LabBuffer.swift",
    "Sources/Lab/LabThread.swift",
    "Sources/Lab/Socket.swift",
    "Sources/Lab/Spawned.swift",
    "Sources/Lab/StreamDigest.swift",
    "Sources/Lab/System.swift",
  ]

  @Test func unsafeStaysInNamedFiles() throws {
    var found: Set<String> = []
    for file in try Checkout.swiftFiles("Sources") where !file.places("unsafe").isEmpty { found.insert(file.path) }
    #expect(Self.unsafeFiles.count <= 59, "more files with `unsafe`: have one of these do it")
    #expect(found.subtracting(Self.unsafeFiles).sorted() == [], "files that use `unsafe` but are not on the list")
    #expect(Self.unsafeFiles.subtracting(found).sorted() == [], "files on the list that no longer use `unsafe`")
  }

  @Test func nothingForcesATrapOrIsLeftOpen() throws {
    for file in try Checkout.swiftFiles("Sources") {
      let traps = file.places("try!", "as!")
      #expect(traps.isEmpty, "a force that traps: \(traps)")
      let open = file.placesAnywhere("TODO", "FIXME", "XXX")
      #expect(open.isEmpty, "left open: \(open)")
    }
  }

  @Test func filesAreShortEnoughToRead() throws {
    for folder in ["Sources", "Tests", "Fuzz"] {
      for file in try Checkout.swiftFiles(folder) {
        #expect(file.lines.count <= 601, "\(file.path) has \(file.lines.count - 1) lines; 600 are allowed")
      }
    }
  }

  @Test func productsBuildWithoutUnsafeFlags() throws {
    // SwiftPM refuses such a package as a dependency.
    #expect(!(try Checkout.text("Package.swift")).contains("unsafeFlags"))
  }

  @Test(arguments: [
    "PacketIO", "Dataplane", "Identity", "KeyDerivation", "Keying", "KeyAgreement", "Transports", "Relay",
  ])
  func publicDeclarationsAreDocumented(module: String) throws {
    for file in try Checkout.swiftFiles("Sources/\(module)") {
      let bare = file.undocumentedPublicDeclarations
      #expect(bare.isEmpty, "public without a doc comment: \(bare.joined(separator: ", "))")
    }
  }
}

extension SourceFile {
  /// "PATH:LINE" of public declarations that no doc comment covers. A comment covers the declarations that follow
  /// it without a blank line. Not judged, because a comment would only repeat the name: initialisers, stored
  /// properties, and what a standard protocol asks for.
  var undocumentedPublicDeclarations: [String] {
    let stored = /\bpublic (?:private\(set\) |internal\(set\) )?(?:let|var) (?!.*\{)/
    let standard =
      /\b(?:var (?:description|debugDescription|customMirror|errorDescription|rawValue|count)\b|struct Iterator\b|typealias Element\b|func (?:hash|encode|next|makeAsyncIterator)\b|static func (?:==|<))/
    var bare: [String] = []
    for (number, line) in lines.enumerated() {
      guard line.contains("public"),
        line.contains(/^\s*(?:@\w+(?:\([^)]*\))?\s+)*public (?!import\b|init\b|extension\b)/),
        !line.contains(standard), !line.contains(stored)
      else { continue }
      let indentation = line.prefix { $0 == " " }.count
      var above = number - 1
      var documented = false
      while above >= 0, !lines[above].allSatisfy({ $0 == " " }) {
        let indented = lines[above].prefix { $0 == " " }.count
        if indented < indentation { break }
        if indented == indentation, lines[above].dropFirst(indentation).hasPrefix("///") {
          documented = true
          break
        }
        above -= 1
      }
      if !documented { bare.append("\(path):\(number + 1)") }
    }
    return bare
  }
}
