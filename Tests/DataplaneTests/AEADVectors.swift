import Dataplane
import Testing

/// A known answer of a cipher, in hexadecimal; `data` has 0, 8 or 12 bytes, the lengths that `AdditionalData` can hold.
struct AEADVector: Sendable, CustomTestStringConvertible {
  let name: String
  let cipher: Cipher
  let key: String
  let nonce: String
  var data = ""
  /// Nil: `sealed` is a forgery.
  let plain: String?
  let sealed: String

  var testDescription: String { name }

  /// From NIST's CAVP files for AES-GCM: those with a 96-bit IV, a 128-bit tag and no additional data.
  static let nist: [AEADVector] = [
    AEADVector(
      name: "gcmEncryptExtIV128 PTlen 0 Count 0", cipher: .aes128GCM,
      key: "11754cd72aec309bf52f7687212e8957", nonce: "3c819d9a9bed087615030b65",
      plain: "",
      sealed: "250327c674aaf477aef2675748cf6971"),
    AEADVector(
      name: "gcmEncryptExtIV128 PTlen 0 Count 1", cipher: .aes128GCM,
      key: "ca47248ac0b6f8372a97ac43508308ed", nonce: "ffd2b598feabc9019262d2be",
      plain: "",
      sealed: "60d20404af527d248d893ae495707d1a"),
    AEADVector(
      name: "gcmEncryptExtIV128 PTlen 128 Count 0", cipher: .aes128GCM,
      key: "7fddb57453c241d03efbed3ac44e371c", nonce: "ee283a3fc75575e33efd4887",
      plain: "d5de42b461646c255c87bd2962d3b9a2",
      sealed: "2ccda4a5415cb91e135c2a0f78c9b2fdb36d1df9b9d5e596f83e8b7f52971cb3"),
    AEADVector(
      name: "gcmEncryptExtIV128 PTlen 128 Count 1", cipher: .aes128GCM,
      key: "ab72c77b97cb5fe9a382d9fe81ffdbed", nonce: "54cc7dc2c37ec006bcc6d1da",
      plain: "007c5e5b3e59df24a7c355584fc1518d",
      sealed: "0e1bde206a07a9c2c1b65300f8c649972b4401346697138c7a4891ee59867d0c"),
    AEADVector(
      name: "gcmEncryptExtIV128 PTlen 104 Count 0", cipher: .aes128GCM,
      key: "fe9bb47deb3a61e423c2231841cfd1fb", nonce: "4d328eb776f500a2f7fb47aa",
      plain: "f1cc3818e421876bb6b8bbd6c9",
      sealed: "b88c5c1977b35b517b0aeae96743fd4727fe5cdb4b5b42818dea7ef8c9"),
    AEADVector(
      name: "gcmEncryptExtIV128 PTlen 104 Count 1", cipher: .aes128GCM,
      key: "6703df3701a7f54911ca72e24dca046a", nonce: "12823ab601c350ea4bc2488c",
      plain: "793cd125b0b84a043e3ac67717",
      sealed: "b2051c80014f42f08735a7b0cd38e6bcd29962e5f2c13626b85a877101"),
    AEADVector(
      name: "gcmEncryptExtIV128 PTlen 256 Count 0", cipher: .aes128GCM,
      key: "9971071059abc009e4f2bd69869db338", nonce: "07a9a95ea3821e9c13c63251",
      plain: "f54bc3501fed4f6f6dfb5ea80106df0bd836e6826225b75c0222f6e859b35983",
      sealed: """
        0556c159f84ef36cb1602b4526b12009c775611bffb64dc0d9ca9297cd2c6a017870d9117f54811a346970f1de090c41
        """),
    AEADVector(
      name: "gcmEncryptExtIV128 PTlen 256 Count 1", cipher: .aes128GCM,
      key: "f0a551c56973e1cfdfe2d353aad66c2a", nonce: "94e95e0544ab0b0b9997aee3",
      plain: "734c0907ef49a1d86bc665bb9da9cedeeecd2abfed7f591c201ac360ca42f941",
      sealed: """
        f2c2f0c35e0bf6c5f5c24d8aadba19ed35848959b9c586604c396428493418d08855aecbe9604a839fa5d481f8760ffc
        """),
    AEADVector(
      name: "gcmEncryptExtIV128 PTlen 408 Count 0", cipher: .aes128GCM,
      key: "594157ec4693202b030f33798b07176d", nonce: "49b12054082660803a1df3df",
      plain: """
        3feef98a976a1bd634f364ac428bb59cd51fb159ec1789946918dbd50ea6c9d594a3a31a5269b0da6936c29d063a5fa2
        cc8a1c
        """,
      sealed: """
        c1b7a46a335f23d65b8db4008a49796906e225474f4fe7d39e55bf2efd97fd82d4167de082ae30fa01e465a601235d8d
        68bc69ba92d3661ce8b04687e8788d55417dc2
        """),
    AEADVector(
      name: "gcmEncryptExtIV128 PTlen 408 Count 1", cipher: .aes128GCM,
      key: "7e6a5b6d296ac7a7494b72c93bad15ce", nonce: "5225c255bc82949a1cdb86c8",
      plain: """
        8bd452633f9dae0639fe0e67e36401adf65b3edf6799ff9eec80d85c13c85e0ee09491d4f5acaf8ae920281801a2f5d1
        2c9370
        """,
      sealed: """
        2348f512a3a8501be9eaa41d8a127fcd8f0368d5053981a5626f85405363d218af7ba52a2bdb87a1ff07329f21792f4c
        64fc398753cee020ac668e9e1a37f63231543e
        """),
    AEADVector(
      name: "gcmEncryptExtIV256 PTlen 0 Count 0", cipher: .aes256GCM,
      key: "b52c505a37d78eda5dd34f20c22540ea1b58963cf8e5bf8ffa85f9f2492505b4", nonce: "516c33929df5a3284ff463d7",
      plain: "",
      sealed: "bdc1ac884d332457a1d2664f168c76f0"),
    AEADVector(
      name: "gcmEncryptExtIV256 PTlen 0 Count 1", cipher: .aes256GCM,
      key: "5fe0861cdc2690ce69b3658c7f26f8458eec1c9243c5ba0845305d897e96ca0f", nonce: "770ac1a5a3d476d5d96944a1",
      plain: "",
      sealed: "196d691e1047093ca4b3d2ef4baba216"),
    AEADVector(
      name: "gcmEncryptExtIV256 PTlen 128 Count 0", cipher: .aes256GCM,
      key: "31bdadd96698c204aa9ce1448ea94ae1fb4a9a0b3c9d773b51bb1822666b8f22", nonce: "0d18e06c7c725ac9e362e1ce",
      plain: "2db5168e932556f8089a0622981d017d",
      sealed: "fa4362189661d163fcd6a56d8bf0405ad636ac1bbedd5cc3ee727dc2ab4a9489"),
    AEADVector(
      name: "gcmEncryptExtIV256 PTlen 128 Count 1", cipher: .aes256GCM,
      key: "460fc864972261c2560e1eb88761ff1c992b982497bd2ac36c04071cbb8e5d99", nonce: "8a4a16b9e210eb68bcb6f58d",
      plain: "99e4e926ffe927f691893fb79a96b067",
      sealed: "133fc15751621b5f325c7ff71ce08324ec4e87e0cf74a13618d0b68636ba9fa7"),
    AEADVector(
      name: "gcmEncryptExtIV256 PTlen 104 Count 0", cipher: .aes256GCM,
      key: "82c4f12eeec3b2d3d157b0f992d292b237478d2cecc1d5f161389b97f999057a", nonce: "7b40b20f5f397177990ef2d1",
      plain: "982a296ee1cd7086afad976945",
      sealed: "ec8e05a0471d6b43a59ca5335f113ddeafc62373cac2f5951bb9165249"),
    AEADVector(
      name: "gcmEncryptExtIV256 PTlen 104 Count 1", cipher: .aes256GCM,
      key: "db4340af2f835a6c6d7ea0ca9d83ca81ba02c29b7410f221cb6071114e393240", nonce: "40e438357dd80a85cac3349e",
      plain: "8ddb3397bd42853193cb0f80c9",
      sealed: "b694118c85c41abf69e229cb0fc07f1b8aafbd152f697eb67f2a85fe45"),
    AEADVector(
      name: "gcmEncryptExtIV256 PTlen 256 Count 0", cipher: .aes256GCM,
      key: "268ed1b5d7c9c7304f9cae5fc437b4cd3aebe2ec65f0d85c3918d3d3b5bba89b", nonce: "9ed9d8180564e0e945f5e5d4",
      plain: "fe29a40d8ebf57262bdb87191d01843f4ca4b2de97d88273154a0b7d9e2fdb80",
      sealed: """
        791a4a026f16f3a5ea06274bf02baab469860abde5e645f3dd473a5acddeecfc05b2b74db0662550435ef1900e136b15
        """),
    AEADVector(
      name: "gcmEncryptExtIV256 PTlen 256 Count 1", cipher: .aes256GCM,
      key: "c772a8d5e9f3384f16be2c34bf9afd9ebf86b69e6f610cd195a9db169e9be17e", nonce: "9b8e079f9971d7352e6810a3",
      plain: "7f13fcaf0db79d792823a9271b1213a98d116eff7e8e3c86ddeb6a0a03f13afa",
      sealed: """
        d29e2bf3518668a14f17a3e4e76e1b43685734b801118d33a23238f34d18aa408e02b0b7d172cf5e2578f5b30fac2e7a
        """),
    AEADVector(
      name: "gcmEncryptExtIV256 PTlen 408 Count 0", cipher: .aes256GCM,
      key: "1fded32d5999de4a76e0f8082108823aef60417e1896cf4218a2fa90f632ec8a", nonce: "1f3afa4711e9474f32e70462",
      plain: """
        06b2c75853df9aeb17befd33cea81c630b0fc53667ff45199c629c8e15dce41e530aa792f796b8138eeab2e86c7b7bee
        1d40b0
        """,
      sealed: """
        91fbd061ddc5a7fcc9513fcdfdc9c3a7c5d4d64cedf6a9c24ab8a77c36eefbf1c5dc00bc50121b96456c8cd8b6ff1f8b
        3e480f30096d340f3d5c42d82a6f475def23eb
        """),
    AEADVector(
      name: "gcmEncryptExtIV256 PTlen 408 Count 1", cipher: .aes256GCM,
      key: "b405ac89724f8b555bfee1eaa369cd854003e9fae415f28c5a199d4d6efc83d6", nonce: "cec71a13b14c4d9bd024ef29",
      plain: """
        ab4fd35bef66addfd2856b3881ff2c74fdc09c82abe339f49736d69b2bd0a71a6b4fe8fc53f50f8b7d6d6d6138ab442c
        7f653f
        """,
      sealed: """
        69a079bca9a6a26707bbfa7fd83d5d091edc88a7f7ff08bd8656d8f2c92144ff23400fcb5c370b596ad6711f386e18f2
        629e766d2b7861a3c59ba5a3e3a11c92bb2b14
        """),
    AEADVector(
      name: "gcmDecrypt128 PTlen 0 Count 1", cipher: .aes128GCM,
      key: "a49a5e26a2f8cb63d05546c2a62f5343", nonce: "907763b19b9b4ab6bd4f0281",
      plain: nil,
      sealed: "a2be08210d8c470a8df6e8fbd79ec5cf"),
    AEADVector(
      name: "gcmDecrypt128 PTlen 128 Count 2", cipher: .aes128GCM,
      key: "5164df856f1e9cac04a79b808dc5be39", nonce: "e76925d5355e0584ce871b2b",
      plain: nil,
      sealed: "0216c899c88d6e32c958c7e553daa5bca145319896329c96df291f64efbe0e3a"),
    AEADVector(
      name: "gcmDecrypt128 PTlen 104 Count 3", cipher: .aes128GCM,
      key: "7d7b6c988137b8d470c57bf674a09c87", nonce: "9edf2aa970d016ac962e1fd8",
      plain: nil,
      sealed: "a85b66c3cb5eab91d5bdc8bc0edc054efc01f3afd21d9c2484819f569a"),
    AEADVector(
      name: "gcmDecrypt128 PTlen 256 Count 1", cipher: .aes128GCM,
      key: "c3aa0400ea3f5107fbe8aa011e1391b3", nonce: "9c22008475e7a907f7abc966",
      plain: nil,
      sealed: """
        96a06e1fdb0082ebc6441312dd9cd6ed6f7fac745facc368b5ab2a3951bd75a66e84d66448068f67889404263a047a88
        """),
    AEADVector(
      name: "gcmDecrypt128 PTlen 408 Count 0", cipher: .aes128GCM,
      key: "f3c4c058c7f0965a0328f0f011a128e0", nonce: "e96098c39d9aa83522119355",
      plain: nil,
      sealed: """
        b42c25155820564b41c525c6aa8ff4363c7c511917772b9bcd574b0be1f6b4ca2153869ddf0c4f76dfad3aef0a76ce05
        6582f944331e39b8a66a81591ed155d7d32372
        """),
    AEADVector(
      name: "gcmDecrypt256 PTlen 0 Count 1", cipher: .aes256GCM,
      key: "e5a8123f2e2e007d4e379ba114a2fb66e6613f57c72d4e4f024964053028a831", nonce: "51e43385bf533e168427e1ad",
      plain: nil,
      sealed: "38fe845c66e66bdd884c2aecafd280e6"),
    AEADVector(
      name: "gcmDecrypt256 PTlen 128 Count 2", cipher: .aes256GCM,
      key: "c997768e2d14e3d38259667a6649079de77beb4543589771e5068e6cd7cd0b14", nonce: "835090aed9552dbdd45277e2",
      plain: nil,
      sealed: "9f6607d68e22ccf21928db0986be126ef32617f67c574fd9f44ef76ff880ab9f"),
    AEADVector(
      name: "gcmDecrypt256 PTlen 104 Count 0", cipher: .aes256GCM,
      key: "8b37c4b8cf634704920059866ad96c49e9da502c63fca4a3a7a4dcec74cb0610", nonce: "cb59344d2b06c4ae57cd0ea4",
      plain: nil,
      sealed: "66ab935c93555e786b775637a3d8733acbb564d8afaa99d7ca2e2f92a9"),
    AEADVector(
      name: "gcmDecrypt256 PTlen 256 Count 3", cipher: .aes256GCM,
      key: "a6da42afcc5b86f989910f7d27f29362a4e4a07ab9b7090d5820cbf97faf0729", nonce: "fa099d57bdcec5b25ee2e20d",
      plain: nil,
      sealed: """
        c70900c56aaedf2af746e834d39af7eed53b86b1e832d9f72bcf35ecf814428244d3f379ca0c4afa71b147bc84d49143
        """),
    AEADVector(
      name: "gcmDecrypt256 PTlen 408 Count 1", cipher: .aes256GCM,
      key: "28ae911ee685872d906de12d7696351df8ef2234a74a95efa4ea15b327338fe0", nonce: "2fe6a815d4865181fade5fac",
      plain: nil,
      sealed: """
        1168442ef64656ef6577fb42c1919c84aae856388e4db9945bb8c9b8412bbe6458bc400444d5d2bf2630f83468f66f9e
        46e790b75f616fd1a3d6563b62b899e5a7e522
        """),
  ]

  static let rfc8439: [AEADVector] = [
    AEADVector(
      name: "RFC 8439 2.8.2", cipher: .chacha20Poly1305,
      key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f", nonce: "070000004041424344454647",
      data: "50515253c0c1c2c3c4c5c6c7",
      plain: """
        4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a20496620492063
        6f756c64206f6666657220796f75206f6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73
        637265656e20776f756c642062652069742e
        """,
      sealed: """
        d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b
        1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc
        3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691
        """),
    AEADVector(
      name: "RFC 8439 A.5", cipher: .chacha20Poly1305,
      key: "1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0", nonce: "000000000102030405060708",
      data: "f33388860000000000004e91",
      plain: """
        496e7465726e65742d4472616674732061726520647261667420646f63756d656e74732076616c696420666f72206120
        6d6178696d756d206f6620736978206d6f6e74687320616e64206d617920626520757064617465642c207265706c6163
        65642c206f72206f62736f6c65746564206279206f7468657220646f63756d656e747320617420616e792074696d652e
        20497420697320696e617070726f70726961746520746f2075736520496e7465726e65742d4472616674732061732072
        65666572656e6365206d6174657269616c206f7220746f2063697465207468656d206f74686572207468616e20617320
        2fe2809c776f726b20696e2070726f67726573732e2fe2809d
        """,
      sealed: """
        64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb24c6cfc18755d43eea09ee94e382d26b0
        bdb7b73c321b0100d4f03b7f355894cf332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855
        9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4b9166c767b804d46a59b5216cde7a4e9
        9040c5a40433225ee282a1b0a06c523eaf4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a
        0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a1049e617d91d361094fa68f0ff77987130
        305beaba2eda04df997b714d6c6f2c29a6ad5cb4022b02709beead9d67890cbb22392336fea1851f38
        """),
  ]
}
