import Foundation
public import Settings

/// A gateway's configuration file, and the key files it names: read anew each time it is asked for the plan.
public struct GatewayFile: PlanSource {
  /// As it was given; problems are reported under it.
  public let name: String

  /// - Parameter path: "-" is standard input, which can be read once.
  public init(_ path: String) { name = path }

  public var origin: String { name == "-" ? "standard input" : URL(fileURLWithPath: name).path }

  /// Reads the file, and the key files it names relative to it.
  /// - Throws: `FileProblems`.
  public func plan() throws(FileProblems) -> GatewayPlan {
    let root: Setting
    do {
      root = try Setting(
        contentsOf: name, remedy: "give the path of a gateway's file", firstSetting: GatewayFile.firstSetting)
    } catch {
      throw FileProblems([error])
    }
    return try GatewayFile.plan(root, path: name)
  }

  /// Reads the text of a file that stands, or would stand, at `path`.
  /// - Throws: `FileProblems`.
  public static func plan(text: String, path: String) throws(FileProblems) -> GatewayPlan {
    let root: Setting
    do {
      root = try Setting(parsing: text, file: path, firstSetting: firstSetting)
    } catch {
      throw FileProblems([error])
    }
    return try plan(root, path: path)
  }

  private static let firstSetting = "start with the gateway's own name, 'name: alpha'"

  private static func plan(_ root: Setting, path: String) throws(FileProblems) -> GatewayPlan {
    let problems = ProblemList(file: path)
    let reader = GatewayFileReader(root, path: path, problems: problems)
    let plan = reader.plan()
    try problems.throwIfAny()
    return plan
  }
}
