import PacketIO
import Transports

/// A control port: the same number for datagrams and streams.
struct ControlPort: BitwiseCopyable {
  let datagrams: Int32
  var listener: PolledListener
  /// Its datagrams are polled for, or wait for their turn.
  var isReceiving = false

  /// Opens those of all listening addresses, or none.
  static func open(_ endpoints: [Endpoint]) throws(SystemError) -> [ControlPort] {
    var controls: [ControlPort] = []
    do throws(SystemError) {
      for endpoint in endpoints {
        let datagrams = try open(.udp, endpoint)
        do throws(SystemError) {
          controls.append(ControlPort(datagrams: datagrams, listener: PolledListener(try open(.tcp, endpoint))))
        } catch {
          KernelSocket.close(datagrams)
          throw error
        }
      }
    } catch {
      for control in controls {
        KernelSocket.close(control.datagrams)
        KernelSocket.close(control.listener.descriptor)
      }
      throw error
    }
    return controls
  }

  private static func open(_ kind: KernelSocket, _ endpoint: Endpoint) throws(SystemError) -> Int32 {
    do throws(SystemError) {
      return try kind.patiently(endpoint) {
        kind == .udp
          ? UDPSocket.open(endpoint, waits: true, tellsDestinations: true, bufferSize: Engine.socketBuffer)
          : TCPSocket.listen(endpoint, waits: false)
      }
    } catch {
      throw SystemError(
        "listen on \(kind == .udp ? "UDP" : "TCP") \(endpoint)", errno: error.errno,
        remedy: "choose another address or port for `listen`, or stop the program that uses it "
          + "(ss -\(kind == .udp ? "u" : "t")lpn shows it)")
    }
  }
}
