import PacketIO

/// The text forms of addresses, and of addresses with a port: what is accepted prints as something that reads back
/// as the same value.
let endpointText = FuzzTarget(name: "EndpointText") { input in
  let text = text(input)
  if let address = IPAddress(text) {
    require(IPAddress(address.description) == address, "'\(text)' prints as \(address), which is another address")
  }
  guard let endpoint = Endpoint(text, defaultPort: 4500) else { return }
  require(text.utf8.allSatisfy(isAddressText), "'\(text)' is taken for an endpoint")
  require(endpoint.port != 0, "'\(text)' has port 0")
  require(
    Endpoint(endpoint.description, defaultPort: 1) == endpoint,
    "'\(text)' prints as \(endpoint), which is another endpoint")
}

/// Whether `byte` can occur in the text of an address, a prefix or an endpoint.
func isAddressText(_ byte: UInt8) -> Bool { "0123456789abcdefABCDEF.:/[]".utf8.contains(byte) }
