// swift-tools-version: 6.2
import Foundation
import PackageDescription

/// Intel's multi-buffer IPsec library is optional: where its header is missing, OpenSSL seals alone.
#if arch(x86_64)
  let hasMultiBuffer = FileManager.default.fileExists(atPath: "/usr/include/intel-ipsec-mb.h")
#else
  let hasMultiBuffer = false
#endif

/// Warnings are errors where a test asks for it, not for everybody: the next compiler will have new ones.
let warnings: [SwiftSetting] =
  Context.environment["CULVERT_WARNINGS"] == "error" ? [.treatAllWarnings(as: .error)] : []
let settings: [SwiftSetting] =
  [
    .strictMemorySafety(), .enableUpcomingFeature("ExistentialAny"), .enableUpcomingFeature("InternalImportsByDefault"),
  ] + warnings
let multiBufferTargets: [Target] = hasMultiBuffer ? [.systemLibrary(name: "CIPsecMB")] : []
let multiBufferDependencies: [Target.Dependency] = hasMultiBuffer ? ["CIPsecMB"] : []
let multiBufferSettings: [SwiftSetting] = hasMultiBuffer ? [.define("CULVERT_IPSEC_MB")] : []

let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let crypto: Target.Dependency = .product(name: "Crypto", package: "swift-crypto")
let yams: Target.Dependency = .product(name: "Yams", package: "Yams")

/// What is built, for `--version`. An archive of the sources knows none.
let commit = Context.environment["CULVERT_COMMIT"] ?? Context.gitInformation?.currentCommit ?? "0"

/// Fuzzing needs an instrumented build, so its program exists only where `scripts/fuzz` asks for it.
let isForFuzzing = Context.environment["CULVERT_FUZZ"] != nil
let fuzzTargets: [Target] =
  isForFuzzing
  ? [
    .executableTarget(
      name: "culvert-fuzz",
      dependencies: [
        "culvert", "culvert-relay", "Gateway", "Settings", "Dataplane", "Identity", "Keying", "Transports", "Relay",
        "PacketIO",
      ],
      path: "Fuzz/Targets")
  ] : []
let fuzzSettings: [SwiftSetting] = isForFuzzing ? [.define("CULVERT_FUZZ")] : []

/// A program of `Sources/CliTools`.
func cli(_ name: String, dependencies: [Target.Dependency]) -> Target {
  let path = "Sources/CliTools/\(name)"
  // Fuzzing needs what reads files, and a module that is a program cannot be linked into another one.
  if isForFuzzing, name == "culvert" {
    return .target(
      name: name, dependencies: ["Host", "PacketIO"], path: path, sources: ["Packets"], swiftSettings: settings)
  }
  if isForFuzzing, name == "culvert-relay" {
    return .target(
      name: name, dependencies: ["Identity", "Relay", "Settings", "Transports"], path: path,
      sources: ["RelayPolicyReader.swift"], swiftSettings: settings)
  }
  return .executableTarget(name: name, dependencies: dependencies, path: path, swiftSettings: settings)
}

let package = Package(
  name: "culvert",
  // Programs are not declared: SwiftPM makes a product of each here, and a package that depends on this one for its
  // libraries then resolves none of what only programs need.
  products: [
    .library(name: "PacketIO", targets: ["PacketIO"]),
    .library(name: "Dataplane", targets: ["Dataplane"]),
    .library(name: "Identity", targets: ["Identity"]),
    .library(name: "KeyDerivation", targets: ["KeyDerivation"]),
    .library(name: "Transports", targets: ["Transports"]),
    .library(name: "Relay", targets: ["Relay"]),
    .library(name: "Keying", targets: ["Keying"]),
    .library(name: "KeyAgreement", targets: ["KeyAgreement"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
    // For ML-KEM alone, which Debian's OpenSSL does not have yet.
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.0"),
  ],
  targets: multiBufferTargets + [
    .systemLibrary(name: "CLiburing"),
    .systemLibrary(name: "COpenSSL"),
    .systemLibrary(name: "CLibSSL"),
    .systemLibrary(name: "CLinux"),
    .systemLibrary(name: "CVector"),
    .target(name: "CVersion", cSettings: [.define("CULVERT_COMMIT", to: "0x\(commit.prefix(12))")]),
    .target(name: "PacketIO", dependencies: ["CLiburing", "CLinux"], swiftSettings: settings + fuzzSettings),
    .target(
      name: "Dataplane", dependencies: ["PacketIO", "CLinux", "CVector", "COpenSSL"] + multiBufferDependencies,
      swiftSettings: settings + multiBufferSettings),
    // Names, signatures and packets of the handshake: no code in it encrypts anything, or makes a key of a secret.
    .target(name: "Identity", dependencies: ["PacketIO", "COpenSSL"], swiftSettings: settings),
    // Secrets that two agree upon, and keys made of secrets: what a relay is not to link.
    .target(name: "KeyDerivation", dependencies: ["PacketIO", "Identity", "COpenSSL"], swiftSettings: settings),
    .target(name: "Transports", dependencies: ["PacketIO", "CLinux", "COpenSSL", "CLibSSL"], swiftSettings: settings),
    // What forwards sealed packets between gateways, and knows no key but those of control systems.
    .target(name: "Relay", dependencies: ["PacketIO", "Identity", "Transports", "CLinux"], swiftSettings: settings),
    // Handshakes, without socket, clock or thread.
    .target(name: "Keying", dependencies: ["PacketIO", "Identity", "KeyDerivation"], swiftSettings: settings),
    // Handshakes of a running dataplane.
    .target(
      name: "KeyAgreement", dependencies: ["PacketIO", "Identity", "Keying", "Dataplane"], swiftSettings: settings),
    .target(name: "Host", dependencies: ["PacketIO", "CLinux", "CVersion"], swiftSettings: settings),
    .target(name: "Settings", dependencies: ["Host", "PacketIO", yams], swiftSettings: settings),
    .target(
      name: "Gateway",
      dependencies: [
        "PacketIO", "Identity", "Keying", "KeyAgreement", "Dataplane", "Transports", "Host", "Settings", logging,
      ],
      swiftSettings: settings),
    .target(name: "Lab", dependencies: ["CLinux"], swiftSettings: settings),
    cli(
      "culvert",
      dependencies: [
        "Gateway", "Dataplane", "Identity", "Keying", "PacketIO", "Relay", "Transports", "Host", "Settings",
        argumentParser, crypto,
        logging,
      ]),
    // The gateways that it shows are `culvert`'s; what sites are made of is not in a gateway.
    cli("culvert-demo", dependencies: ["Gateway", "Dataplane", "Lab", "Host", argumentParser]),
    // No Dataplane and no Gateway: a relay has no code that could open a packet.
    cli(
      "culvert-relay",
      dependencies: ["PacketIO", "Identity", "Transports", "Relay", "Host", "Settings", argumentParser]),
    cli(
      "vpnbench",
      dependencies: [
        "Dataplane", "Identity", "KeyDerivation", "Keying", "KeyAgreement", "PacketIO", "Transports", "Relay", "Lab",
        "CLinux", "Host", argumentParser,
      ]),
    .testTarget(name: "PacketIOTests", dependencies: ["PacketIO", "TestSupport"]),
    .target(
      name: "TestSupport", dependencies: ["Dataplane", "Identity", "KeyDerivation", "PacketIO"],
      path: "Tests/TestSupport"),
    .testTarget(name: "DataplaneTests", dependencies: ["Dataplane", "PacketIO", "CLinux", "TestSupport"]),
    .testTarget(
      name: "Simulation",
      dependencies: ["Dataplane", "PacketIO", "Relay", "Transports", "TestSupport", "TransportSupport"]),
    .testTarget(
      name: "IdentityTests", dependencies: ["Identity", "KeyDerivation", "PacketIO", "TestSupport"],
      exclude: ["vectors.txt"]),
    .target(
      name: "TransportSupport", dependencies: ["Transports", "PacketIO", "Lab", "TestSupport"],
      path: "Tests/TransportSupport"),
    .testTarget(
      name: "TransportsTests",
      dependencies: ["Transports", "CLibSSL", "PacketIO", "Lab", "TestSupport", "TransportSupport"]),
    .testTarget(
      name: "RelayTests",
      dependencies: [
        "Relay", "Gateway", "Identity", "Keying", "Transports", "PacketIO", "Lab", "TestSupport", "TransportSupport",
      ]),
    .testTarget(name: "KeyingTests", dependencies: ["Keying", "Identity", "KeyDerivation", "PacketIO"]),
    .testTarget(name: "HostTests", dependencies: ["Host", "PacketIO"]),
    .testTarget(name: "SettingsTests", dependencies: ["Settings"]),
    .testTarget(
      name: "GatewayAgentTests",
      dependencies: [
        "culvert", "Gateway", "Identity", "Keying", "KeyAgreement", "Dataplane", "PacketIO", "Transports", "Relay",
        "Host", "Settings", "TransportSupport", logging,
      ]),
    .testTarget(
      name: "CulvertTests",
      dependencies: [
        "culvert", "culvert-relay", "Gateway", "Identity", "Keying", "KeyAgreement", "Dataplane", "PacketIO",
        "Transports", "Relay", "Host", "Settings",
      ]),
    .testTarget(
      name: "NetworkTests",
      dependencies: [
        "culvert", "Gateway", "Identity", "Keying", "KeyAgreement", "Dataplane", "PacketIO", "Transports", "Lab",
        "CLinux", "TestSupport", "TransportSupport",
      ]),
    .testTarget(name: "VPNBenchTests", dependencies: ["vpnbench", "Dataplane", "Lab"]),
    .testTarget(name: "HouseTests", dependencies: ["Gateway", "Identity", "Dataplane", "PacketIO"]),
  ] + fuzzTargets,
  swiftLanguageModes: [.v6]
)
