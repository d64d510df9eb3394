import Gateway
import Settings

/// A gateway's file: it is read, or refused with at least one problem that has a place and a remedy.
let gatewayFileText = FuzzTarget(name: "GatewayFileText") { input in
  do throws(FileProblems) {
    let file = try GatewayFile.plan(text: text(input), path: "/nonexistent/gateway.yaml")
    require(!file.name.isEmpty, "a gateway without a name")
    require(file.listen.port != 0, "a gateway that listens on port 0")
  } catch {
    require(!error.problems.isEmpty, "refused without a problem")
    require(error.problems.allSatisfy { !$0.problem.isEmpty && !$0.remedy.isEmpty }, "\(error) says nothing")
    require(error.problems.allSatisfy { ($0.line ?? 1) > 0 }, "\(error) is on no line")
    require(!error.description.contains("\n\n"), "an empty line in \(error)")
  }
}
