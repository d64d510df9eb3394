import KeyAgreement
public import Keying

/// With whom keys are agreed upon, and what is done with them here.
public struct PlannedKeys: Sendable, Equatable {
  public var partner: Partner
  var terms: AssociationTerms
}
