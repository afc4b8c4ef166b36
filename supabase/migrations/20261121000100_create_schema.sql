-- The schema, its version table, the roles, and the one function that closes everything that is not opened by name.
-- Any tool may apply these files; each records itself, and applying one twice is refused before it changes anything.

do $$
begin
    if to_regclass('tallybook.schema_migrations') is not null then
        raise exception 'this database already has Tallybook''s schema'
            using hint = 'Run "tallybook migrate --status"; to tell Supabase so, "tallybook migrate --mark-supabase".';
    end if;
end
$$;

create schema tallybook;

create table tallybook.schema_migrations (
    version text not null,
    name text not null,
    applied_at timestamptz not null default clock_timestamp(),
    -- The oldest release that still runs correctly on this schema.
    min_release text not null,
    constraint schema_migrations_pkey primary key (version),
    constraint schema_migrations_version_is_a_timestamp check (version ~ '^[0-9]{14}$')
);

-- A hosted database may forbid creating roles; then `doctor` says what is missing.
do $$
declare
    v_role text;
begin
    foreach v_role in array array['anon', 'authenticated', 'service_role', 'tallybook_app'] loop
        if not exists (select from pg_catalog.pg_roles where rolname = v_role) then
            begin
                execute format('create role %I nologin', v_role);
            exception when insufficient_privilege then
                raise warning 'role % does not exist and may not be created here', v_role;
            end;
        end if;
    end loop;
    -- The owner may act as the application, so that one DATABASE_URL can serve both. Granted even if the owner is a
    -- member already: from version 16 on, whoever creates a role may hand it out but not become it.
    if exists (select from pg_catalog.pg_roles where rolname = 'tallybook_app' and rolname <> current_user) then
        begin
            execute format('grant tallybook_app to %I', current_user);
        exception when insufficient_privilege then
            raise warning 'the owner may not become tallybook_app';
        end;
    end if;
end
$$;

-- Each later migration starts with this, so that it is applied once whichever tool applies it.
create function tallybook.begin_migration(p_version text, p_name text, p_min_release text)
returns void
language plpgsql
set search_path = ''
as $$
begin
    if exists (select from tallybook.schema_migrations where version = p_version) then
        raise exception 'migration % is already applied', p_version
            using hint = 'Run "tallybook migrate --status"; to tell Supabase so, "tallybook migrate --mark-supabase".';
    end if;
    insert into tallybook.schema_migrations (version, name, min_release)
    values (p_version, p_name, p_min_release);
end
$$;

insert into tallybook.schema_migrations (version, name, min_release)
values ('20261121000100', 'create_schema', '0.1.0');
