/// What a proxy tells of tickets and hairpins, on its own thread: whoever is told must not wait.
public struct HairpinProxyReports: Sendable {
  /// A ticket is refused, by a stranger as often as he likes: to be limited.
  public var onRefusal: @Sendable (HairpinRefusal) -> Void = { _ in }
  /// A hairpin has ended.
  public var onRecord: @Sendable (HairpinRecord) -> Void = { _ in }
  /// A ticket is used up or its remains change: kept on disk, it survives a restart.
  public var onUse: @Sendable (HairpinUse) -> Void = { _ in }

  public init() {}
}
