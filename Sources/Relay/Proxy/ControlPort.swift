import PacketIO
import Transports

/// A control port: the same number for datagrams and streams, or one for encrypted streams alone.
struct ControlPort: BitwiseCopyable {
  /// What it listens at.
  let endpoint: Endpoint
  /// -1: it takes none.
  let datagrams: Int32
  var listener: PolledListener
  /// Its streams are inside TLS.
  let isEncrypted: Bool
  /// Its datagrams are polled for, or wait for their turn; or the kernel hands them over.
  var isReceiving = false

  /// Opens those of all listening addresses, or none.
  /// - Parameters:
  ///   - encrypted: those for encrypted streams, which come last.
  ///   - isShared: sealed packets come there too, in trains.
  static func open(_ endpoints: [Endpoint], encrypted: [Endpoint], isShared: Bool) throws(SystemError) -> [ControlPort]
  {
    var controls: [ControlPort] = []
    do throws(SystemError) {
      for endpoint in endpoints {
        let datagrams = try open(.udp, endpoint, isShared: isShared)
        do throws(SystemError) {
          let listener = PolledListener(try open(.tcp, endpoint, isShared: isShared))
          controls.append(
            ControlPort(endpoint: endpoint, datagrams: datagrams, listener: listener, isEncrypted: false))
        } catch {
          KernelSocket.close(datagrams)
          throw error
        }
      }
      for endpoint in encrypted {
        let listener = PolledListener(try open(.tcp, endpoint, isShared: isShared, setting: "listen-tls"))
        controls.append(
          ControlPort(endpoint: endpoint, datagrams: -1, listener: listener, isEncrypted: true, isReceiving: true))
      }
    } catch {
      for control in controls { control.close() }
      throw error
    }
    return controls
  }

  func close() {
    if datagrams >= 0 { KernelSocket.close(datagrams) }
    listener.close()
  }

  private static func open(
    _ kind: KernelSocket, _ endpoint: Endpoint, isShared: Bool, setting: String = "listen"
  ) throws(SystemError) -> Int32 {
    do throws(SystemError) {
      return try kind.patiently(endpoint) {
        kind == .udp
          ? UDPSocket.open(
            endpoint, waits: true, tellsDestinations: !isShared,
            bufferSize: isShared ? 4 * Engine.socketBuffer : Engine.socketBuffer)
          : TCPSocket.listen(endpoint, waits: false)
      }
    } catch {
      throw SystemError(
        "listen on \(kind == .udp ? "UDP" : "TCP") \(endpoint)", errno: error.errno,
        remedy: "choose another address or port for `\(setting)`, or stop the program that uses it "
          + "(ss -\(kind == .udp ? "u" : "t")lpn shows it)")
    }
  }
}
