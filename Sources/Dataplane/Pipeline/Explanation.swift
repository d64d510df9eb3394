/// What would become of a packet, and why. Made by the pipelines' own steps, which for this commit nothing: no sequence
/// number is used, no flow begins, no counter moves, nothing is sent.
public struct Explanation: Sendable, Equatable, Codable {
  /// What one step of a pipeline found, in its order.
  public struct Step: Sendable, Equatable, Codable {
    /// A pipeline's steps, by what they look at.
    public enum Name: String, Sendable, Codable, CaseIterable {
      case packet, route, association, path, translation, firewall, fit, aggregation, sequence
    }
    public var name: Name
    /// For people, one line.
    public var finding: String
  }

  /// What judged the packet, or the flow that it belongs to.
  public struct Judgement: Sendable, Equatable, Codable {
    /// "rule", or the part of the policy: "access-list", "default: outbound", "state", ….
    public var ground: String
    /// Of the rule, where a rule judged.
    public var rule: Int?
    public var ruleName: String?
    /// It belongs to a flow that was known before.
    public var isKnownFlow: Bool
  }

  /// One end's addresses before and behind the tunnel's translation.
  public struct Translation: Sendable, Equatable, Codable {
    /// On the tunnel.
    public var source: String
    public var destination: String
  }

  public var direction: TrafficDirection
  public var source: String?
  public var destination: String?
  /// Protocol number (IANA).
  public var transport: UInt8?
  /// Nil: it would arrive. What no step can foresee remains: a full buffer pool later, a path that loses it.
  public var drop: DropReason?
  public var peer: String?
  /// The prefix by which the peer was found.
  public var prefix: String?
  /// Of the association that seals it; inbound the newest that may have sealed it.
  public var spi: UInt32?
  /// The path to the peer, "192.0.2.2:4500".
  public var path: String?
  /// Bytes of the largest IP packet on the path; nil: not measured, or any size fits.
  public var pathMTU: Int?
  /// Bytes of the largest packet inside that fits.
  public var largestInner: Int?
  /// Nil: there is no firewall, or the packet did not get there.
  public var judgement: Judgement?
  /// Nil: addresses stay as they are.
  public var translation: Translation?
  /// Packets that it leaves as, sealed.
  public var packets = 0
  /// The MTU its sender is told, where it sends too much at once.
  public var toldMTU: Int?
  public var steps: [Step] = []

  init(direction: TrafficDirection) { self.direction = direction }

  mutating func add(_ name: Step.Name, _ finding: String) { steps.append(Step(name: name, finding: finding)) }

  /// Ends with a drop at this step.
  mutating func refuse(_ reason: DropReason, at name: Step.Name, _ finding: String) {
    drop = reason
    add(name, "\(finding): \(reason.name)")
  }
}
