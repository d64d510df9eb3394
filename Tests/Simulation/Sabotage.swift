/// What a test breaks on purpose, so that it is seen to be found.
enum Sabotage: String, CaseIterable {
  /// Gateways forget what they have accepted.
  case acceptsTwice
  /// Some datagrams get to another gateway than they should.
  case deliversElsewhere
  /// A device loses packets that nobody counts.
  case losesDelivery
  /// Some packets are not what was sent.
  case altersDelivery
  /// A gateway holds a buffer for good.
  case leaksBuffer
  /// A gateway does not judge.
  case forgetsFirewall
  /// A gateway that was started anew begins with sequence number 1 again.
  case repeatsNumbers
}
