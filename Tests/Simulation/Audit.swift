import PacketIO

@testable import Dataplane

/// Looks at the books of gateways when nothing is under way any more, beside what the model expects.
struct Audit {
  let model: Model
  let plan: Plan
  /// Datagrams that each gateway's nodes were given.
  let taken: [Int]
  /// Reasons for which gateways may have dropped packets that nothing has harmed.
  let allowed: Set<DropReason>

  /// What a sealed packet is refused for that does not come from a peer, or has come before.
  private static let refusals: Set<DropReason> = [.truncated, .unknownSPI, .replayed, .authenticationFailed]
  /// What is counted elsewhere, or told to the sender, or follows from what was lost.
  private static let expected: Set<DropReason> = [
    .noRoute, .noAssociation, .spoofedSource, .firewallRule, .exceedsPathMTU, .incompletePacket,
  ]

  /// Nil, or what is wrong.
  func complaint(about gateway: Gateway) -> String? {
    if let complaint = gateway.complaint { return complaint }
    let (books, name) = (gateway.books, "gateway \(gateway.number)")
    let refused = Audit.refusals.reduce(0) { $0 + books.dropped($1) }
    let expected = model.refused[gateway.number]
    if refused != expected { return "\(name) has refused \(refused) sealed packets instead of \(expected)" }
    // One that brings several counts several times.
    if !plan.aggregates, books.opened != taken[gateway.number] {
      return "\(name) was given \(taken[gateway.number]) sealed packets, and knows of \(books.opened)"
    }
    for (verdict, reason) in [(Model.Verdict.goesNowhere, DropReason.noRoute), (.isUnsealed, .noAssociation)] {
      let (count, expected) = (books.dropped(reason), model.count(verdict, from: gateway.number))
      if count != expected { return "\(name) counts \(count) packets as \(reason) instead of \(expected)" }
    }
    for reason in DropReason.allCases where books.dropped(reason) > 0 {
      guard !Audit.expected.contains(reason), !Audit.refusals.contains(reason), !allowed.contains(reason) else {
        continue
      }
      return "\(name) has dropped \(books.dropped(reason)) packets: \(reason)"
    }
    return nil
  }
}
