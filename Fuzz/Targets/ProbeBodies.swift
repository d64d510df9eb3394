import Dataplane
import PacketIO

/// Bodies of probes and of answers to them, from a peer that turned evil: what is read can be written, and reads back
/// the same.
let probeBodies = FuzzTarget(name: "ProbeBodies") { input in
  var probe: ProbeMessage?
  var reply: ProbeReply?
  withPacketBytes(input) { (probe, reply) = (ProbeMessage($0), ProbeReply($0)) }
  require((probe == nil) == (input.count < 8) && (reply == nil) == (input.count < 8), "what is too short is refused")
  if let probe {
    require(probe.body.count == ProbeMessage.length, "a probe has one length")
    withPacketBytes(probe.body) { bytes in
      var whole = probe
      whole.tieBreaker = probe.tieBreaker ?? 0
      require(ProbeMessage(bytes) == whole, "a probe reads back otherwise")
    }
  }
  if let reply {
    require(reply.body.count == (reply.seen == nil ? 8 : ProbeReply.length), "an answer has one length of two")
    withPacketBytes(reply.body) { require(ProbeReply($0) == reply, "an answer reads back otherwise") }
  }
}
