/// Where a gateway's plan comes from, at the start and at each reload.
public protocol PlanSource: Sendable {
  /// What operators call it: a file's path. Problems that no line of it is to blame for are reported under this.
  var name: String { get }

  /// The same for whoever reads it elsewhere: an absolute path. The name, unless something else is said.
  var origin: String { get }

  /// What is planned now.
  /// - Throws: what is wrong with it, in lines for the operator; then whoever runs goes on as before.
  func plan() async throws -> GatewayPlan
}

extension PlanSource {
  public var origin: String { name }
}
