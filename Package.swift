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
let yams: Target.Dependency = .product(name: "Yams", package: "Yams")

/// Fuzzing needs an instrumented build, so its program exists only where `scripts/fuzz` asks for it.
let isForFuzzing = Context.environment["CULVERT_FUZZ"] != nil
let fuzzTargets: [Target] =
  isForFuzzing
  ? [
    .executableTarget(
      name: "culvert-fuzz", dependencies: ["ControlPlane", "Dataplane", "Transports", "PacketIO"], path: "Fuzz/Targets")
  ] : []
let fuzzSettings: [SwiftSetting] = isForFuzzing ? [.define("CULVERT_FUZZ")] : []

let package = Package(
  name: "culvert",
  products: [
    .library(name: "PacketIO", targets: ["PacketIO"]),
    .library(name: "Dataplane", targets: ["Dataplane"]),
    .library(name: "Transports", targets: ["Transports"]),
    .executable(name: "culvert", targets: ["culvert"]),
    .executable(name: "culvert-relay", targets: ["culvert-relay"]),
    .executable(name: "vpnbench", targets: ["vpnbench"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.0"),
  ],
  targets: multiBufferTargets + [
    .systemLibrary(name: "CLiburing"),
    .systemLibrary(name: "COpenSSL"),
    .systemLibrary(name: "CLinux"),
    .systemLibrary(name: "CVector"),
    .target(name: "PacketIO", dependencies: ["CLiburing", "CLinux"], swiftSettings: settings + fuzzSettings),
    .target(
      name: "Dataplane", dependencies: ["PacketIO", "CLinux", "CVector", "COpenSSL"] + multiBufferDependencies,
      swiftSettings: settings + multiBufferSettings),
    .target(name: "Transports", dependencies: ["PacketIO", "CLinux", "COpenSSL"], swiftSettings: settings),
    .target(
      name: "ControlPlane", dependencies: ["PacketIO", "Dataplane", "Transports", "CLinux", logging, yams],
      swiftSettings: settings),
    .target(name: "Lab", dependencies: ["CLinux"], swiftSettings: settings),
    .executableTarget(
      name: "culvert", dependencies: ["ControlPlane", "PacketIO", "Transports", "Lab", argumentParser, logging],
      path: "Sources/CliTools/culvert", swiftSettings: settings),
    // No Dataplane and no ControlPlane: a relay has no code that could open a packet.
    .executableTarget(
      name: "culvert-relay", dependencies: ["PacketIO", "Transports", argumentParser, yams],
      path: "Sources/CliTools/culvert-relay", swiftSettings: settings),
    .executableTarget(
      name: "vpnbench", dependencies: ["ControlPlane", "Dataplane", "Transports", "Lab", "CLinux", argumentParser],
      path: "Sources/CliTools/vpnbench", swiftSettings: settings),
    .testTarget(name: "PacketIOTests", dependencies: ["PacketIO", "CLinux"]),
    .target(name: "TestSupport", path: "Tests/TestSupport"),
    .testTarget(name: "DataplaneTests", dependencies: ["Dataplane", "PacketIO", "CLinux", "TestSupport"]),
    .testTarget(name: "Simulation", dependencies: ["Dataplane", "PacketIO", "TestSupport"]),
    .testTarget(name: "TransportsTests", dependencies: ["Transports", "PacketIO", "Lab"]),
    .testTarget(name: "ControlPlaneTests", dependencies: ["ControlPlane", "Dataplane", "PacketIO"]),
    .testTarget(
      name: "NetworkTests", dependencies: ["ControlPlane", "Dataplane", "PacketIO", "Transports", "Lab", "CLinux"]),
    .testTarget(name: "VPNBenchTests", dependencies: ["vpnbench", "Dataplane", "Lab"]),
    .testTarget(name: "HouseTests", dependencies: ["ControlPlane", "Dataplane"]),
  ] + fuzzTargets,
  swiftLanguageModes: [.v6]
)
