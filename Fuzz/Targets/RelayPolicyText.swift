import Relay
import Settings

@testable import culvert_relay

/// An identity relay's policy: it is read, or refused with at least one problem that has a place and a remedy.
let relayPolicyText = FuzzTarget(name: "RelayPolicyText") { input in
  let root: Setting
  do throws(FileProblem) {
    root = try Setting(parsing: text(input), file: "/nonexistent/policy.yaml")
  } catch {
    return require(!error.problem.isEmpty && !error.remedy.isEmpty, "\(error) says nothing")
  }
  let problems = ProblemList(file: "/nonexistent/policy.yaml")
  let reader = SettingReader(
    root, line: root.line, place: "", known: RelayPolicyReader.known, problems: problems)
  let policy = RelayPolicyReader(reader: reader).policy()
  require(problems.problems.allSatisfy { !$0.problem.isEmpty && !$0.remedy.isEmpty }, "a problem says nothing")
  for pair in policy.namedPairs {
    require(policy.names(pair.smaller) && policy.names(pair.greater), "a pair whose gateways are not named")
  }
}
