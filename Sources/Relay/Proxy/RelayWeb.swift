import PacketIO
import Transports

/// What a relay's ports for encrypted streams have for others than gateways: the answer of a web server without pages, or
/// the web server that they are handed on to (`WebFront`).
enum RelayWeb {
  /// Takes a stream over, with the bytes that have come.
  static func begin(_ place: Int, _ bytes: PacketBytes, _ server: inout HairpinServer) {
    let now = server.engine.clock.monotonic
    guard
      server.web.begin(place, bytes, &server.streams.table, ring: &server.engine.io.ring, now: now)
    else { return StrangerStreams.drop(place, &server) }
    goOn(place, &server)
  }

  /// Takes what came.
  static func take(_ place: Int, _ bytes: PacketBytes, _ server: inout HairpinServer) {
    let now = server.engine.clock.monotonic
    guard server.web.take(place, bytes, &server.streams.table, ring: &server.engine.io.ring, now: now) else {
      return StrangerStreams.drop(place, &server)
    }
    goOn(place, &server)
  }

  /// Sends what was sealed, and reads on unless the web server does not keep up.
  static func goOn(_ place: Int, _ server: inout HairpinServer) {
    guard server.streams.table.flush(place) else { return StrangerStreams.drop(place, &server) }
    if server.streams.table.hasSealed(place) {
      server.streams.pollWritable(place: place, &server.engine)
    } else {
      server.web.sent(place, server.streams.table, ring: &server.engine.io.ring)
    }
    if !server.web.holdsBack(place) { server.streams.pollReadable(place, &server.engine) }
  }

  /// The web server takes or says something.
  static func complete(_ completion: Completion, _ server: inout HairpinServer) {
    let (pool, now) = (server.engine.io.pool, server.engine.clock.monotonic)
    switch server.web.complete(
      completion, &server.streams.table, ring: &server.engine.io.ring, pool: pool, now: now)
    {
    case .goOn(let place), .ended(let place): goOn(place, &server)
    case .failed(let place): StrangerStreams.drop(place, &server)
    case nil: break
    }
  }

  /// Closes those that say nothing for long.
  static func sweep(_ server: inout HairpinServer) {
    let now = server.engine.clock.monotonic
    for place in server.web.sweep(server.streams.table, ring: &server.engine.io.ring, now: now) {
      StrangerStreams.drop(place, &server)
    }
  }

  /// Closes those that were handed on; the others are strangers still.
  static func close(_ server: inout HairpinServer) {
    for place in 0..<server.streams.table.used where server.web.serves(place) { StrangerStreams.drop(place, &server) }
  }
}
