import Testing

@testable import vpnbench

@Suite struct PeerTests {
  @Test func programsThatAreMissingAreNamed() {
    let (found, missing) = VPNProgram.find(given: []) { $0 == "tincd" ? "/usr/sbin/tincd" : nil }
    #expect(found == [VPNProgramChoice(program: .tinc, name: "tinc", path: "/usr/sbin/tincd")])
    #expect(Set(missing) == Set(VPNProgram.allCases).subtracting([.tinc]))
    #expect(VPNProgram.allCases.allSatisfy { !$0.package.isEmpty && !$0.executable.isEmpty })
  }

  @Test func aPathGivenGoesBesideOrInPlaceOfTheOneInstalled() throws {
    let beside = try #require(VPNProgramChoice("wireguard-go-new=/opt/a=b/wireguard-go"))
    #expect(beside.path == "/opt/a=b/wireguard-go" && beside.program == .wireGuardGo)
    let instead = try #require(VPNProgramChoice("nebula=/opt/nebula"))
    let (found, missing) = VPNProgram.find(given: [beside, instead]) { "/usr/bin/\($0)" }
    #expect(missing.isEmpty)
    #expect(found.filter { $0.program == .wireGuardGo }.map(\.name) == ["wireguard-go", "wireguard-go-new"])
    #expect(found.filter { $0.program == .nebula } == [instead])
  }

  @Test func theLongestNameCounts() {
    #expect(VPNProgramChoice("openvpn-tcp-new=/opt/openvpn")?.program == .openVPNOverTCP)
    #expect(VPNProgramChoice("openvpn-new=/opt/openvpn")?.program == .openVPN)
  }

  @Test(arguments: ["nebula", "=x", "nebula=", "ssh=/usr/bin/ssh"])
  func whatIsNoPeerIsRefused(text: String) { #expect(VPNProgramChoice(text) == nil) }

  @Test func tincTellsWhichDatagramsPass() {
    let output = """
      Nodes:
       end0 at MYSELF cipher 0 digest 0 pmtu 1518 (min 0 max 1518)
       end1 at 192.0.2.2 port 655 cipher 427 digest 672 maclength 4 pmtu 1518 (min 0 max 1518)
      Nodes:
       end1 at 192.0.2.2 port 655 cipher 427 digest 672 maclength 4 pmtu 1456 (min 1367 max 1456)
      Edges:
       end0 to end1 at 192.0.2.2 port 655 options c weight 38
      """
    #expect(Tinc.datagramSize(output, to: "end1") == 1367)
    #expect(Tinc.datagramSize(output, to: "end2") == nil)
    #expect(Tinc.datagramSize("", to: "end1") == nil)
  }

  @Test(arguments: Layout.allCases, Family.allCases)
  func subjectsHaveAddressesOfTheirOwn(layout: Layout, family: Family) {
    var seen: Set<String> = []
    for number in 20...199 {
      let plan = SubjectPlan(layout: layout, family: family, number: number, mtu: 1400)
      for side in 0...1 {
        #expect(seen.insert(plan.tunnelAddress(side)).inserted)
        #expect(seen.insert(plan.prefix(side)).inserted)
        #expect(plan.tunnelAddress(side).contains(":") == (family == .six))
      }
      if layout == .local { #expect(plan.destination == plan.tunnelAddress(1)) }
      if layout == .routed { #expect(seen.insert(plan.destination).inserted) }
    }
  }
}
