-- The one room in which the server itself speaks to a user ("Server Notices").

CREATE TABLE notice_room (
    recipient       BIGINT NOT NULL PRIMARY KEY,
    room            BIGINT NOT NULL
);
