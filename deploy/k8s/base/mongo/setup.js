// Makes MongoDB's replica set and its users; done already, it changes nothing. Runs beside the first member, on whose
// loopback the first user may be made without a password.
const fs = require("fs");
const secrets = process.env.SECRETS || "/run/secrets/mongo";
const secret = (name) => fs.readFileSync(`${secrets}/${name}`, "utf8").trim();
const members = process.env.MEMBERS.split(",");
const admin = db.getSiblingDB("admin");

function loggedIn() {
  try {
    return Boolean(admin.auth("admin", secret("admin_password")).ok);
  } catch (error) {
    return false;
  }
}

function untilPrimary() {
  for (let tries = 0; tries < 60; tries++) {
    if (db.hello().isWritablePrimary) return;
    sleep(500);
  }
  throw new Error("this member did not become primary");
}

if (!loggedIn()) {
  // Alone at first: the others join a set that has its users, and need not be there yet.
  if (!db.hello().setName) {
    rs.initiate({ _id: "rs0", members: [{ _id: 0, host: members[0] }] });
  }
  untilPrimary();
  admin.createUser({ user: "admin", pwd: secret("admin_password"), roles: ["root"] });
  if (!loggedIn()) throw new Error("the new admin cannot log in");
}

if (db.hello().isWritablePrimary) {
  if (!admin.getUser("onesource")) {
    admin.createUser({
      user: "onesource",
      pwd: secret("onesource_password"),
      roles: [{ role: "readWrite", db: "onesource" }, "clusterMonitor"],
    });
  }
  const there = rs.conf().members.map((member) => member.host);
  for (const host of members.filter((each) => !there.includes(each))) {
    rs.add(host); // throws while the member does not answer: setup.sh tries again
  }
} else if (members.some((each) => !db.hello().hosts.includes(each))) {
  throw new Error("another member is primary, and the set is not whole");
}
print("the replica set is whole");
